"""Users of a running stack, by the client module; and applications of their own for its catalog."""

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
    """A document for the catalog; the job keeps no output but its logs."""
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
    """The text of a file of the catalog, to be put behind another."""
    return "".join(f"\n---\n{json.dumps(document)}" for document in documents)


async def client_of(stack: Stack, username: str | None = None) -> JobClient:
    """A client for a user; by default for who also uses the command line, and is an operator."""
    return await JobClient.connect(Actor(username=username or getuser()), stack.ready["temporal"])


def job_file(stack: Stack, application: str, **changes: Any) -> Path:
    """A job of that application, which may run beside others that ask for the same."""
    file = stack.job_file(application, "1")
    document = json.loads(file.read_text()) | {"allowDuplicateJob": True} | changes
    file.write_text(json.dumps(document))
    return file


async def running(stack: Stack, client: JobClient, file: Path) -> str:
    """The job of that file, which the command line has submitted and which runs."""
    job_id = str(stack.json("submit", str(file))["id"])
    await reached(client, job_id, JobState.RUNNING)
    return job_id


async def reached(client: JobClient, job_id: str, state: JobState) -> Job:
    """Wait until the job is in that state, and get it."""

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
