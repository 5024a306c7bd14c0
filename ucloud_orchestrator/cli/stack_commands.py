"""The commands that run the processes of the orchestrator on this machine."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from ucloud_orchestrator.catalog import Severity, load
from ucloud_orchestrator.cli import output
from ucloud_orchestrator.cli.demo import run_demo
from ucloud_orchestrator.cli.exit_codes import REJECTED, UNREACHABLE
from ucloud_orchestrator.cli.settings import DEFAULT_DATA_DIR, DataDir, Json
from ucloud_orchestrator.cli.stack import Ports, running_stack
from ucloud_orchestrator.cli.supervisor import OUR_PYTHON, StackError

DEFAULT_CATALOG = Path("examples/catalog")

CatalogFolder = Annotated[Path, typer.Option("--catalog", help="The folder of the catalog.")]


def add_to(app: typer.Typer) -> None:
    app.command()(dev)
    app.command()(demo)
    app.command()(worker)
    app.command()(provider)
    app.command()(setup)
    app.command("codec-server")(codec_server)
    group = typer.Typer(
        help="The catalog of applications, tools, products and providers.", no_args_is_help=True
    )
    group.command("check")(check_catalog)
    group.callback()(lambda: None)
    app.add_typer(group, name="catalog")


def dev(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    catalog: CatalogFolder = DEFAULT_CATALOG,
    temporal_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Temporal's port; 0: a free one.")
    ] = Ports.temporal,
    ui_port: Annotated[
        int, typer.Option(min=0, max=65535, help="The Web UI's port; 0: a free one.")
    ] = Ports.ui,
    provider_port: Annotated[
        int, typer.Option(min=0, max=65535, help="The provider's port; 0: a free one.")
    ] = Ports.provider,
    as_json: Json = False,
) -> int:
    """Run the whole stack until Ctrl-C: Temporal, the worker and a local provider.

    A process that dies is restarted.
    """
    try:
        with running_stack(
            data_dir, catalog, Ports(temporal_port, ui_port, provider_port)
        ) as stack:
            if as_json:
                output.print_json(stack.ready_event())
            else:
                typer.echo(
                    f"Temporal at {stack.address}, Web UI at {stack.ui_url}, provider at "
                    f"{stack.provider_url}."
                )
                typer.echo(
                    f"Data and logs are in {stack.data_dir}. Ctrl-C stops; jobs at the provider "
                    "go on."
                )
            sys.stdout.flush()
            while True:
                time.sleep(0.2)
                stack.keep_alive()
    except StackError as error:
        typer.echo(str(error), err=True)
        return UNREACHABLE
    except KeyboardInterrupt:
        return 0


def demo(as_json: Json = False) -> int:
    """Run example jobs through a stack of its own, and show what happens."""
    try:
        return run_demo(as_json)
    except StackError as error:
        typer.echo(str(error), err=True)
        return UNREACHABLE


def worker(as_json: Json = False) -> None:
    """Run a worker in the foreground; settings come from the environment (`UCLOUD_*`) or the file
    `UCLOUD_CONFIG`.
    """
    _exec("worker", as_json)


def provider(as_json: Json = False) -> None:
    """Run the local provider in the foreground; settings come from `UCLOUD_PROVIDER_*`."""
    _exec("ucloud_orchestrator.provider", as_json)


def setup(as_json: Json = False) -> None:
    """Prepare Temporal (namespace, search attributes, schedules), the database and the key pairs.

    May be repeated.
    """
    _exec("worker", as_json, "setup")


def codec_server() -> None:
    """Decrypt payloads for the Temporal Web UI in the foreground; settings come from
    `UCLOUD_CODEC_*`.
    """
    _exec("ucloud_orchestrator.temporal.codec_server", False)


def check_catalog(
    folder: Annotated[Path, typer.Argument(help="The folder of the catalog.")] = DEFAULT_CATALOG,
    as_json: Json = False,
) -> int:
    """List every mistake of a catalog with file and line; exits with 2 if there is one."""
    try:
        problems = load(folder).problems
    except NotADirectoryError as error:
        typer.echo(str(error), err=True)
        return REJECTED
    if as_json:
        output.print_json(
            [
                {
                    "file": str(problem.file),
                    "line": problem.line,
                    "severity": problem.severity,
                    "message": problem.message,
                }
                for problem in problems
            ]
        )
    else:
        for problem in problems:
            typer.echo(str(problem))
    return REJECTED if any(problem.severity is Severity.ERROR for problem in problems) else 0


def _exec(module: str, as_json: bool, *arguments: str) -> None:
    sys.stdout.flush()
    options = ["--json"] if as_json else []
    os.execv(sys.executable, [*OUR_PYTHON, module, *arguments, *options])  # noqa: S606
