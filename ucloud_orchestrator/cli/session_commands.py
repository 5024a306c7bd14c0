"""The command that opens interactive sessions."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from client import JobClient
from ucloud_orchestrator.cli import output
from ucloud_orchestrator.cli.exit_codes import REJECTED
from ucloud_orchestrator.cli.job_commands import JobId
from ucloud_orchestrator.cli.settings import DEFAULT_DATA_DIR, DataDir, Json, Project, User, call
from ucloud_orchestrator.cli.terminal import attach
from ucloud_orchestrator.models.session import (
    OpenSession,
    SessionType,
    ShellSession,
    VncSession,
    WebSession,
)


class SessionKind(StrEnum):
    SHELL = "shell"
    WEB = "web"
    VNC = "vnc"


def add_to(app: typer.Typer) -> None:
    app.command("open")(open_session)


def open_session(
    job_id: JobId,
    kind: Annotated[
        SessionKind, typer.Option("--type", help="A terminal here, or the address for a browser.")
    ] = SessionKind.SHELL,
    rank: Annotated[int, typer.Option(min=0, help="Which replica.")] = 0,
    as_json: Json = False,
    user: User = None,
    project: Project = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> int:
    """Open a terminal in a running job, or get the address of its web application or desktop."""

    async def work(client: JobClient) -> int:
        session = await client.open_session(job_id, SessionType(kind.value.upper()), rank)
        if as_json:
            output.print_json(session.to_wire())
            return 0
        return await _present(session)

    return call(data_dir, user, project, work)


async def _present(session: OpenSession) -> int:
    match session:
        case ShellSession(url=str(url)):
            return await attach(url)
        case WebSession(redirect_client_to=address):
            typer.echo(address)
        case VncSession(page=page, url=url):
            typer.echo(page or url)
        case _:
            typer.echo(
                "The provider gives terminals in its own way only; --json shows its answer.",
                err=True,
            )
            return REJECTED
    return 0
