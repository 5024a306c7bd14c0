"""Runs the example jobs in a stack of its own: `make demo`."""

from __future__ import annotations

import asyncio
import getpass
import tempfile
from pathlib import Path

import typer

from client import Actor, JobClient
from ucloud_orchestrator.cli import output
from ucloud_orchestrator.cli.job_file import read_job_file
from ucloud_orchestrator.cli.stack import Ports, Stack, running_stack
from ucloud_orchestrator.models.job import Job, JobState

EXAMPLES = Path(__file__).parents[2] / "examples"
CANCELLED = "sleep.yaml"
JOB_FILES = ("word-count.yaml", "replicas.yaml", "exit-3.yaml", CANCELLED)


def run_demo(as_json: bool) -> int:
    """Run the demonstration; return 0 if every job ended as expected, otherwise 1."""
    folder = Path(tempfile.mkdtemp(prefix="ucloud-demo-"))
    with running_stack(folder, EXAMPLES / "catalog", Ports(0, 0, 0)) as stack:
        if not as_json:
            typer.echo(f"The stack runs: Temporal Web UI at {stack.ui_url}, data in {folder}.")
        results = asyncio.run(_run_jobs(stack, as_json))
    failed = [name for name, is_expected in results.items() if not is_expected]
    if as_json:
        output.print_json({"folder": str(folder), "results": results})
    else:
        typer.echo(
            f"\nThe output files stay in {folder / 'provider' / 'drives' / 'home' / 'Jobs'}."
        )
        typer.echo(
            f"Not as it should be: {', '.join(failed)}."
            if failed
            else "Every job ended as it should."
        )
    return 1 if failed else 0


async def _run_jobs(stack: Stack, as_json: bool) -> dict[str, bool]:
    client = await JobClient.connect(Actor(username=getpass.getuser()), stack.address)
    results = {}
    for name in JOB_FILES:
        specification = read_job_file(EXAMPLES / "jobs" / name)[0]
        job = await client.create(specification)
        if not as_json:
            typer.echo(
                f"\n{name}: {specification.application}, "
                f"{stack.ui_url}/namespaces/default/workflows/{job.id}"
            )
        job = await _watch(client, job.id, name == CANCELLED, as_json)
        results[name] = _is_expected(name, job, stack)
        if not as_json:
            _print_output(job, stack)
    return results


async def _watch(client: JobClient, job_id: str, cancels: bool, as_json: bool) -> Job:
    printed = 0
    async for job in client.follow(job_id):
        for update in job.updates[printed:]:
            if not as_json:
                typer.echo(f"  {output.update_line(update)}")
        printed = len(job.updates)
        if cancels and job.status.state is JobState.RUNNING:
            await client.cancel(job_id, "the demonstration cancels this one")
    return await client.wait(job_id)


def _is_expected(name: str, job: Job, stack: Stack) -> bool:
    if job.status.state is not JobState.SUCCESS:
        return False
    if name == CANCELLED:
        return any(update.state is JobState.CANCELING for update in job.updates)
    expected = {
        "word-count.yaml": "words.txt",
        "replicas.yaml": "stdout-2.txt",
        "exit-3.yaml": "stdout-0.txt",
    }[name]
    has_code = "code 3" in (job.updates[-1].status or "")
    return (_output_folder(job, stack) / expected).is_file() and has_code == (name == "exit-3.yaml")


def _print_output(job: Job, stack: Stack) -> None:
    for file in sorted(_output_folder(job, stack).iterdir()):
        text = file.read_text(errors="replace").rstrip()
        if text:
            indented = "\n".join(f"    | {line}" for line in text.splitlines())
            typer.echo(
                f"    {job.output.output_folder if job.output else ''}/{file.name}\n{indented}"
            )


def _output_folder(job: Job, stack: Stack) -> Path:
    folder = (job.output.output_folder if job.output else None) or ""
    return stack.data_dir / "provider" / "drives" / folder.strip("/")
