"""Act as users of a running stack by the client, with applications of their own."""

from __future__ import annotations

import json
from getpass import getuser
from pathlib import Path
from typing import Any

from client import Actor, JobClient
from tests.end_to_end.running_stack import Stack
from tests.waiting import eventually
from ucloud_orchestrator.models import Job, JobState


def application(
    name: str, kind: str, *invocation: str | dict[str, str], **more: Any
) -> dict[str, Any]:
    """Return an application for the catalog whose jobs keep only their logs."""
    common = {
        "title": name,
        "version": "1",
        "authors": ["UCloud"],
        "description": name,
        "outputFileGlobs": [],
    }
    tool = {"name": "system", "version": "1"}
    fixed = {"application": "v1", "name": name, "tool": tool, "applicationType": kind}
    return fixed | common | {"invocation": list(invocation)} | more


def catalog_of(*documents: dict[str, Any]) -> str:
    """Return the documents as YAML, to be appended to a catalog file."""
    return "".join(f"\n---\n{json.dumps(document)}" for document in documents)


async def client_of(stack: Stack, username: str | None = None) -> JobClient:
    """Return a user's client; the default is the user of the command line, an operator."""
    return await JobClient.connect(Actor(username=username or getuser()), stack.ready["temporal"])


def job_file(stack: Stack, application: str, **changes: Any) -> Path:
    file = stack.job_file(application, "1")
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return file


async def running(stack: Stack, client: JobClient, file: Path) -> str:
    """Submit a job file by the command line, and wait until its job runs."""
    job_id = str(stack.json("submit", str(file))["id"])
    await reached(client, job_id, JobState.RUNNING)
    return job_id


async def reached(client: JobClient, job_id: str, state: JobState) -> Job:
    """Wait until the job is in that state, and return it."""

    async def there() -> Job | None:
        job = await client.retrieve(job_id)
        return job if job.status.state is state else None

    job = await eventually(there, 40)
    assert job is not None
    return job


async def ended(client: JobClient, job_id: str) -> None:
    """Cancel the job, and wait for its end."""
    await client.cancel(job_id)
    assert (await client.wait(job_id)).status.state is JobState.SUCCESS
