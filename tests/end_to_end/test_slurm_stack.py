"""Run jobs in a real Slurm cluster through the whole stack, by the command line."""

from __future__ import annotations

import asyncio
import getpass
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
import yaml

from client import Actor, JobClient, JobRejected
from tests.builders import CPU, specification, text
from tests.end_to_end.running_stack import Stack
from tests.provider.slurm_provider import cluster
from tests.slurm.cluster import Cluster
from tests.waiting import eventually
from ucloud_orchestrator.models import Job, JobSpecification, JobState
from ucloud_orchestrator.models.accounting import Wallet
from ucloud_orchestrator.models.product import ProductCategory

__all__ = ["cluster"]
pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

PAID = {"id": "core-1", "category": "paid-slurm", "provider": "local"}
SUPPORT = {
    "enabled": True,
    "logs": True,
    "terminal": True,
    "timeExtension": True,
    "suspension": True,
    "peers": True,
}
MEETING = """
import pathlib, socket, time
rank = int(pathlib.Path("/etc/ucloud/rank.txt").read_text())
hosts = [pathlib.Path(f"/etc/ucloud/node-{other}.txt").read_text().strip() for other in range(3)]
if rank == 0:
    with socket.create_server(("", 0)) as listening:
        pathlib.Path("/work/port.new").write_text(str(listening.getsockname()[1]))
        pathlib.Path("/work/port.new").rename("/work/port")
        received = []
        for _ in range(2):
            connection, _ = listening.accept()
            received.append(connection.recv(100).decode())
            connection.close()
    print(sorted(received), flush=True)
else:
    while not pathlib.Path("/work/port").exists():
        time.sleep(0.05)
    port = int(pathlib.Path("/work/port").read_text())
    with socket.create_connection((hosts[0], port)) as connection:
        connection.send(f"hello from {rank}".encode())
"""
CATALOG: list[dict[str, Any]] = [
    {
        "product": "v1",
        "name": PAID["id"],
        "description": "A part of a node of the cluster",
        "category": {"name": PAID["category"], "provider": "local"},
        "cpu": 1,
        "memoryInGigs": 1,
        "pricePerUnit": 1,
        "unitOfPrice": "CREDITS_PER_MINUTE",
        "support": {"native": SUPPORT},
    },
    *(
        {
            "application": "v1",
            "title": name,
            "name": name,
            "version": "1",
            "authors": ["UCloud"],
            "description": "Runs in Slurm.",
            "tool": {"name": "system", "version": "1"},
            "applicationType": "BATCH",
            "allowMultiNode": True,
            "invocation": invocation,
            "parameters": parameters,
        }
        for name, invocation, parameters in (
            (
                "script",
                ["sh", "-c", {"type": "var", "vars": "script"}],
                {"script": {"type": "text"}},
            ),
            ("meeting", ["python3", "-c", MEETING], {}),
        )
    ),
]
GRANTED = 100_000
TICKING = "number=0; while true; do number=$((number+1)); echo tick $number; sleep 0.1; done"


@dataclass
class SlurmStack:
    """A stack whose provider runs one product's jobs in a cluster, and its user."""

    stack: Stack
    cluster: Cluster
    jobs: JobClient

    async def run(self, *arguments: str) -> tuple[str, str]:
        """Return the output and errors of a command that succeeds."""
        done = await asyncio.to_thread(self.stack.run, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    async def submitted(self, script: str, **changes: Any) -> str:
        return (await self.jobs.create(job_in_slurm(script, **changes))).id

    async def running(self, script: str, **changes: Any) -> str:
        job_id = await self.submitted(script, **changes)
        await self.reached(job_id, JobState.RUNNING)
        return job_id

    async def reached(self, job_id: str, state: JobState) -> Job:
        async def there() -> Job | None:
            job = await self.jobs.retrieve(job_id)
            assert job.status.state is state or not job.status.state.is_terminal, job.updates
            return job if job.status.state is state else None

        job = await eventually(there, 90)
        assert job is not None
        return job

    async def ended(self, job_id: str) -> str:
        """Wait until nothing of the job is left, and return its last status."""
        job = await self.reached(job_id, JobState.SUCCESS)
        await eventually(lambda: self.stack.nothing_is_left_of(job_id))
        return job.updates[-1].status or ""

    async def cancelled(self, job_id: str) -> None:
        await self.run("cancel", job_id)
        assert await self.ended(job_id) == "Your job has been cancelled!"

    async def wallet(self) -> Wallet:
        (found,) = (await self.jobs.wallets()).wallets
        return found

    def in_slurm(self, job_id: str, column: str) -> str:
        """Return a column of `squeue` for a job."""
        return self.cluster.run(
            "squeue", f"--name=ucloud-{job_id}", "--states=all", "-h", "-o", column
        ).strip()


def job_in_slurm(script: str, application: str = "script", **changes: Any) -> JobSpecification:
    asked = {"product": PAID, "parameters": {"script": text(script)}, "allowDuplicateJob": True}
    return specification(application, **asked | changes)


@pytest.fixture(scope="module")
async def slurm(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[SlurmStack]:
    executors = [{"product": PAID["id"], "category": PAID["category"], "executor": "slurm"}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UCLOUD_PROVIDER_EXECUTORS", json.dumps(executors))
        patch.setenv("UCLOUD_PROVIDER_SLURM_INTERVAL", "0.5")
        stack = Stack(tmp_path_factory.mktemp("stack"), f"\n---\n{yaml.safe_dump_all(CATALOG)}")
        try:
            jobs = await JobClient.connect(
                Actor(username=getpass.getuser()), stack.ready["temporal"]
            )
            category = ProductCategory(name=PAID["category"], provider=PAID["provider"])
            await jobs.grant(jobs.workspace, category, GRANTED)
            yield SlurmStack(stack, cluster, jobs)
        finally:
            stack.stop()


async def test_replicas_on_three_nodes_meet_and_are_charged(slurm: SlurmStack) -> None:
    before = (await slurm.wallet()).spent
    job_id = await slurm.submitted("", replicas=3, application="meeting", parameters={})
    assert (
        await slurm.ended(job_id)
        == "The job has finished with exit codes rank 0: 0, rank 1: 0, rank 2: 0."
    )
    assert await slurm.run("logs", job_id, "--rank", "0") == (
        "[0] ['hello from 1', 'hello from 2']\n",
        "",
    )
    assert slurm.in_slurm(job_id, "%D") == "3"
    assert (await slurm.wallet()).spent - before == 3  # the minute that was begun, for each node


async def test_suspension_and_back(slurm: SlurmStack) -> None:
    job_id = await slurm.running(TICKING)
    await slurm.run("suspend", job_id)
    await slurm.reached(job_id, JobState.SUSPENDED)
    assert slurm.in_slurm(job_id, "%T") == "SUSPENDED"
    (program,) = [
        one
        for one in psutil.process_iter(["cmdline"])
        if one.info["cmdline"] == ["sh", "-c", TICKING]
    ]
    await eventually(lambda: program.status() == psutil.STATUS_STOPPED)
    held = slurm.stack.output(job_id, "stdout-0.txt")
    await slurm.run("resume", job_id)
    await slurm.reached(job_id, JobState.RUNNING)
    assert slurm.in_slurm(job_id, "%T") == "RUNNING"
    await eventually(lambda: len(slurm.stack.output(job_id, "stdout-0.txt")) > len(held) + 50)
    # It is the same program: no tick is missing, and none came twice.
    lines = slurm.stack.output(job_id, "stdout-0.txt").split("\n")[:-1]
    assert lines == [f"tick {number}" for number in range(1, len(lines) + 1)]
    await slurm.cancelled(job_id)


async def test_peers_find_each_other_by_their_host_names(slurm: SlurmStack) -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
    listening = (
        f'python3 -c \'import socket; s = socket.create_server(("", {port})); '
        'print("ready", flush=True)\n'
    )
    listening += 'while True: s.accept()[0].sendall(b"from the database")\''
    database = await slurm.running(listening)
    await eventually(lambda: slurm.stack.output(database, "stdout-0.txt") == "ready\n")
    asking = (
        'python3 -c \'import socket; print(socket.create_connection(("database", '
        f"{port})).recv(100).decode())'"
    )
    peer = {"type": "peer", "hostname": "database", "jobId": database}
    web = await slurm.submitted(f"{asking}", replicas=2, resources=[peer])
    assert (await slurm.ended(web)).startswith(
        "The job has finished with exit codes rank 0: 0, rank 1: 0."
    )
    assert [slurm.stack.output(web, f"stdout-{rank}.txt") for rank in (0, 1)] == [
        "from the database\n"
    ] * 2
    here = {"product": CPU, "resources": [peer]}
    with pytest.raises(JobRejected) as rejected:
        await slurm.submitted("echo never", **here)
    why = (
        "cannot be reached from cpu-1/cpu@local: choose another that runs where "
        "core-1/paid-slurm@local does."
    )
    assert f"The peer database (job {database}) {why}" in str(rejected.value)
    await slurm.cancelled(database)


# The last one: what the controller has lost may drain nodes a while later.
