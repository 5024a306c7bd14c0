"""The commands about jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from client import JobClient, JobFilter
from ucloud_orchestrator.cli import output
from ucloud_orchestrator.cli.exit_codes import REJECTED
from ucloud_orchestrator.cli.follow import follow_job
from ucloud_orchestrator.cli.job_file import InvalidJobFile, read_job_file
from ucloud_orchestrator.cli.settings import DEFAULT_DATA_DIR, DataDir, Json, Project, User, call
from ucloud_orchestrator.models.job import MAXIMUM_HOURS, JobState, SimpleDuration

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id.")]


def add_to(app: typer.Typer) -> None:
    app.command()(submit)
    app.command("list")(list_jobs)
    app.command()(show)
    app.command()(cancel)
    app.command()(extend)
    app.command()(suspend)
    app.command()(resume)


def submit(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A job file, YAML or JSON; or a list of jobs.")
    ],
    wait: Annotated[
        bool, typer.Option("--follow", help="Follow the job until it has ended.")
    ] = False,
    as_json: Json = False,
    user: User = None,
    project: Project = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> int:
    """Start the jobs of a file."""
    try:
        specifications = read_job_file(file)
    except InvalidJobFile as error:
        for sentence in error.sentences:
            typer.echo(sentence, err=True)
        return REJECTED

    async def work(client: JobClient) -> int:
        if len(specifications) == 1:
            jobs = [await client.create(specifications[0])]
        else:
            jobs = await client.create_many(specifications)
        for job in jobs:
            if as_json:
                output.print_json({"id": job.id})
            else:
                typer.echo(f"{job.id} is in state {job.status.state}.")
        codes = [await follow_job(client, job.id, as_json) for job in jobs] if wait else [0]
        return max(codes)

    return call(data_dir, user, project, work)


def list_jobs(
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    provider: Annotated[str | None, typer.Option(help="Only jobs at this provider.")] = None,
    application: Annotated[
        str | None, typer.Option(help="Only jobs of this application, as name@version.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at the most.")] = 50,
    before: Annotated[
        str | None, typer.Option(help="Only jobs older than this id: the next page.")
    ] = None,
    as_json: Json = False,
    user: User = None,
    project: Project = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """List your jobs, newest first."""
    filters = JobFilter(state=state, provider=provider, application=application)
    jobs = call(data_dir, user, project, lambda client: client.browse(filters, limit, before))
    if as_json:
        output.print_json([job.to_wire() for job in jobs])
    else:
        output.console().print(output.jobs_table(jobs))


def show(
    job_id: JobId,
    as_json: Json = False,
    user: User = None,
    project: Project = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Show one job."""
    job = call(data_dir, user, project, lambda client: client.retrieve(job_id))
    if as_json:
        output.print_json(job.to_wire())
    else:
        output.console().print(output.job_table(job))


def cancel(
    job_id: JobId,
    reason: Annotated[str, typer.Option(help="The reason, for the job's updates.")] = "",
    as_json: Json = False,
    user: User = None,
    project: Project = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Cancel a job."""
    call(data_dir, user, project, lambda client: client.cancel(job_id, reason))
    _print_change(job_id, "is being cancelled", as_json)


def extend(
    job_id: JobId,
    hours: Annotated[int, typer.Option(min=0, max=MAXIMUM_HOURS)] = 0,
    minutes: Annotated[int, typer.Option(min=0, max=59)] = 0,
    seconds: Annotated[int, typer.Option(min=0, max=59)] = 0,
    as_json: Json = False,
    user: User = None,
    project: Project = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Add to a job's time allocation."""
    more = SimpleDuration(hours=hours, minutes=minutes, seconds=seconds)
    call(data_dir, user, project, lambda client: client.extend(job_id, more))
    _print_change(job_id, "has more time", as_json)


def suspend(
    job_id: JobId,
    as_json: Json = False,
    user: User = None,
    project: Project = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Suspend a job at its provider; its time allocation goes on."""
    call(data_dir, user, project, lambda client: client.suspend(job_id))
    _print_change(job_id, "is being suspended", as_json)


def resume(
    job_id: JobId,
    as_json: Json = False,
    user: User = None,
    project: Project = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Resume a suspended job."""
    call(data_dir, user, project, lambda client: client.unsuspend(job_id))
    _print_change(job_id, "is being resumed", as_json)


def _print_change(job_id: str, done: str, as_json: bool) -> None:
    if as_json:
        output.print_json({"id": job_id})
    else:
        typer.echo(f"{job_id} {done}.")
