"""The commands that show a job's output."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from client import JobClient
from ucloud_orchestrator.cli import output
from ucloud_orchestrator.cli.follow import follow_job
from ucloud_orchestrator.cli.job_commands import JobId
from ucloud_orchestrator.cli.log_printer import LogPrinter, ignore_broken_pipe
from ucloud_orchestrator.cli.settings import DEFAULT_DATA_DIR, DataDir, Json, Project, User, call
from ucloud_orchestrator.models.provider_api import LogStream


def add_to(app: typer.Typer) -> None:
    app.command()(logs)
    app.command()(follow)


def logs(
    job_id: JobId,
    rank: Annotated[int | None, typer.Option(min=0, help="This replica alone.")] = None,
    stdout: Annotated[bool, typer.Option("--stdout", help="Standard output alone.")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="Standard error alone.")] = False,
    wait: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Go on until the job has ended.")
    ] = False,
    as_json: Json = False,
    user: User = None,
    project: Project = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Print the output of a job; standard error stays apart, and lines of replicas get their
    rank.
    """
    stream = None if stdout == stderr else LogStream.STDOUT if stdout else LogStream.STDERR

    with ignore_broken_pipe():
        call(
            data_dir,
            user,
            project,
            lambda client: _print_logs(client, job_id, rank, stream, wait, as_json),
        )


def follow(
    job_id: JobId,
    as_json: Json = False,
    user: User = None,
    project: Project = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> int:
    """Watch a job's states and output until it has ended; exits with 1 if it ends in FAILURE or
    EXPIRED.
    """
    with ignore_broken_pipe():
        return call(data_dir, user, project, lambda client: follow_job(client, job_id, as_json))
    return 0


async def _print_logs(
    client: JobClient,
    job_id: str,
    rank: int | None,
    stream: LogStream | None,
    wait: bool,
    as_json: bool,
) -> None:
    job = await client.retrieve(job_id)
    printer = LogPrinter(prefixed=job.specification.replicas > 1)
    try:
        async for message in client.follow_logs(job_id, rank, stream, wait):
            if as_json:
                output.print_json(message.to_wire())
                sys.stdout.flush()
            else:
                printer.print(message)
    finally:
        printer.finish()
