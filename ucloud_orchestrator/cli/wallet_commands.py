"""The commands about credits."""

from __future__ import annotations

from typing import Annotated

import typer

from client import JobClient
from ucloud_orchestrator.cli import output
from ucloud_orchestrator.cli.settings import DEFAULT_DATA_DIR, DataDir, Json, Project, User, call
from ucloud_orchestrator.models.product import ProductCategory
from ucloud_orchestrator.models.workspace import Workspace

LEDGER_LINES = 50


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Credits: what is left, what was moved, and grants.", invoke_without_command=True
    )
    group.callback()(wallet)
    group.command()(ledger)
    group.command()(grant)
    app.add_typer(group, name="wallet")


def wallet(
    context: typer.Context,
    as_json: Json = False,
    user: User = None,
    project: Project = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Show what is left of your credits, or of your project's."""
    if context.invoked_subcommand is not None:
        return
    wallets = call(data_dir, user, project, lambda client: client.wallets(0)).wallets
    if as_json:
        output.print_json([one.to_wire() for one in wallets])
    else:
        output.console().print(output.wallets_table(wallets))


def ledger(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many lines.")] = LEDGER_LINES,
    as_json: Json = False,
    user: User = None,
    project: Project = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """List the movements of your credits, newest first."""
    movements = call(data_dir, user, project, lambda client: client.wallets(limit)).movements
    if as_json:
        output.print_json([one.to_wire() for one in movements])
    else:
        output.console().print(output.ledger_table(movements))


def grant(
    amount: Annotated[int, typer.Argument(metavar="CREDITS", min=1, help="How many credits.")],
    category: Annotated[
        str, typer.Argument(metavar="CATEGORY@PROVIDER", help="What they pay for.")
    ],
    for_user: Annotated[str | None, typer.Option(help="Whose wallet; by default your own.")] = None,
    for_project: Annotated[str | None, typer.Option(help="The project whose wallet it is.")] = None,
    note: Annotated[str, typer.Option(help="The reason, for the ledger.")] = "",
    as_json: Json = False,
    user: User = None,
    project: Project = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Put credits into a wallet of a user or of a project; for operators."""
    name, _, provider = category.partition("@")
    if not name or not provider:
        raise typer.BadParameter(
            "must be CATEGORY@PROVIDER, such as cpu@local", param_hint="CATEGORY@PROVIDER"
        )
    if for_user and for_project:
        raise typer.BadParameter(
            "is for a user or for a project, not for both", param_hint="--for-project"
        )

    async def work(client: JobClient) -> Workspace:
        owner = client.workspace
        if for_user or for_project:
            owner = Workspace(user=for_user, project=for_project)
        await client.grant(owner, ProductCategory(name=name, provider=provider), amount, note)
        return owner

    owner = call(data_dir, user, project, work)
    if as_json:
        output.print_json({"owner": owner.to_wire(), "category": category, "amount": amount})
    else:
        typer.echo(f"The {owner} has {amount} more credits for {category}.")
