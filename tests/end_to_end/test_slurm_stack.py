"""Jobs in a real Slurm cluster through the whole stack, by the command line: what users do, and
what they see when something is killed.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from client import Actor, JobClient, JobRejected
from tests.builders import CPU, specification, text
from tests.end_to_end.keyboard import Keyboard
from tests.end_to_end.running_stack import COMMAND, Stack
from tests.provider.slurm_provider import cluster
from tests.provider.test_slurm import MEETING
from tests.slurm.cluster import CORES_OF_A_NODE, Cluster
from tests.waiting import eventually
from ucloud_orchestrator.models import Job, JobSpecification, JobState
from ucloud_orchestrator.models.accounting import Wallet
from ucloud_orchestrator.models.product import ProductCategory

__all__ = ["cluster"]
pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

PAID = {"id": "core-1", "category": "paid-slurm", "provider": "local"}
WHOLE_NODE = {"id": "node-8", "category": "slurm", "provider": "local"}
SUPPORT = {
    "enabled": True,
    "logs": True,
    "terminal": True,
    "timeExtension": True,
    "suspension": True,
    "peers": True,
}
CATALOG: list[dict[str, Any]] = [
    *(
        {
            "product": "v1",
            "name": product["id"],
            "description": "A part of a node of the cluster",
            "category": {"name": product["category"], "provider": "local"},
            "cpu": cores,
            "memoryInGigs": 1,
            "support": {"native": SUPPORT},
        }
        | price
        for product, cores, price in (
            (PAID, 1, {"pricePerUnit": 1, "unitOfPrice": "CREDITS_PER_MINUTE"}),
            (WHOLE_NODE, CORES_OF_A_NODE, {"freeToUse": True}),
        )
    ),
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
UNTIL_GO = "echo begun; while [ ! -e go ]; do sleep 0.1; done"


@dataclass
class SlurmStack:
    """A stack whose provider runs one product's jobs in a cluster, and its user."""

    stack: Stack
    cluster: Cluster
    jobs: JobClient

    async def run(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """Return a command's output and errors, and check its exit code."""
        done = await asyncio.to_thread(self.stack.run, *arguments)
        assert done.returncode == code, done.stderr
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

    async def ended(self, job_id: str, state: JobState = JobState.SUCCESS) -> str:
        """Wait until nothing of the job is left, and return its last status."""
        job = await self.reached(job_id, state)
        await eventually(lambda: self.stack.nothing_is_left_of(job_id))
        return job.updates[-1].status or ""

    async def cancelled(self, job_id: str) -> None:
        await self.run("cancel", job_id)
        assert await self.ended(job_id) == "Your job has been cancelled!"

    async def wallet(self) -> Wallet:
        (found,) = (await self.jobs.wallets()).wallets
        return found

    def folder(self, job_id: str) -> Path:
        return self.stack.folder / "provider/jobs" / job_id

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
    executors = [
        {"product": product["id"], "category": product["category"], "executor": "slurm"}
        for product in (PAID, WHOLE_NODE)
    ]
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


@pytest.fixture
def whole(cluster: Cluster) -> Iterator[Cluster]:
    """Return the cluster, and repair it after a test that kills its daemons."""
    try:
        yield cluster
    finally:
        cluster.repair()


@pytest.fixture(scope="module")
async def lost(slurm: SlurmStack) -> str:
    """Run a job on a node, and kill the node's slurmd.

    Slurm needs half a minute to notice; the other tests use the other three nodes.
    """
    job_id = await slurm.running("sleep 300", product=WHOLE_NODE)
    slurm.cluster.kill(slurm.in_slurm(job_id, "%N"))
    return job_id


@pytest.mark.usefixtures("lost")
async def test_a_batch_job_with_its_exit_code_and_output(slurm: SlurmStack) -> None:
    script = "echo out; echo wrong >&2; echo kept > result.txt; exit 3"
    file = slurm.stack.folder / "job.json"
    file.write_text(job_in_slurm(script).model_dump_json(by_alias=True))
    job_id = json.loads((await slurm.run("submit", str(file), "--json"))[0])["id"]
    assert await slurm.ended(job_id) == "The job has finished with exit code 3."
    assert await slurm.run("logs", job_id) == ("out\n", "wrong\n")
    assert slurm.stack.output(job_id, "result.txt") == "kept\n"


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


async def test_logs_are_followed_by_rank(slurm: SlurmStack) -> None:
    script = 'for i in 1 2 3; do echo "$UCLOUD_RANK says $i"; sleep 0.3; done; echo no >&2'
    job_id = await slurm.submitted(script, replicas=2)
    out, wrong = await slurm.run("logs", job_id, "--follow")
    assert sorted(out.splitlines()) == [
        f"[{rank}] {rank} says {i}" for rank in (0, 1) for i in (1, 2, 3)
    ]
    assert sorted(wrong.splitlines()) == ["[0] no", "[1] no"]
    assert await slurm.run("logs", job_id, "--rank", "1", "--stderr") == ("", "[1] no\n")
    assert (await slurm.ended(job_id)).startswith("The job has finished")


async def test_an_extension_extends_the_slurm_job(slurm: SlurmStack) -> None:
    job_id = await slurm.running("sleep 300")
    before = (await slurm.jobs.retrieve(job_id)).status.expires_at
    assert slurm.in_slurm(job_id, "%l") == "1:10:00"  # what the tool says, and the margin
    await slurm.run("extend", job_id, "--hours", "2")
    assert before is not None
    assert (await slurm.jobs.retrieve(job_id)).status.expires_at == before + 2 * 3_600_000
    assert slurm.in_slurm(job_id, "%l") == "3:10:00"
    await slurm.cancelled(job_id)


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


async def test_a_terminal_on_the_node_of_a_rank(slurm: SlurmStack) -> None:
    job_id = await slurm.running("sleep 300", replicas=2)
    command = [
        COMMAND,
        "open",
        job_id,
        "--type",
        "shell",
        "--rank",
        "1",
        "--data-dir",
        str(slurm.stack.folder),
    ]
    with Keyboard(command, columns=91, rows=33) as keyboard:
        keyboard.read_until("# ")
        keyboard.type("stty size; echo ra''nk-$(cat /etc/ucloud/rank.txt)-$UCLOUD_RANK in $PWD\n")
        keyboard.read_until("33 91")
        keyboard.read_until("rank-1-1 in /work")
        keyboard.type("sh -c 'echo sta\"\"rted; sleep 250'\n")
        keyboard.read_until("started")
        keyboard.text = ""
        keyboard.type("\x03")
        keyboard.read_until("# ")
        keyboard.type("exit 0\n")
        assert keyboard.wait() == 0
    _, rejected = await slurm.run("open", job_id, "--type", "shell", "--rank", "2", code=2)
    assert rejected == "There is no rank 2: the job's 2 replicas count from 0.\n"
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


async def test_a_cancel_leaves_no_process_and_no_claim(slurm: SlurmStack) -> None:
    job_id = await slurm.running("sleep 300 & sleep 300", replicas=2)
    assert (await slurm.wallet()).reserved == 2 * 60
    await eventually(lambda: len(slurm.stack.processes_of(job_id)) > 1)
    await slurm.cancelled(job_id)
    assert slurm.stack.processes_of(job_id) == []
    left = await slurm.wallet()
    assert (left.reserved, left.available) == (0, GRANTED - left.spent)


async def test_a_killed_provider_reports_the_true_end(slurm: SlurmStack) -> None:
    job_id = await slurm.running(f"{UNTIL_GO}; exit 7")
    await asyncio.to_thread(slurm.stack.kill, "provider")
    (slurm.folder(job_id) / "work/go").touch()
    assert await slurm.ended(job_id) == "The job has finished with exit code 7."
    assert slurm.stack.output(job_id, "stdout-0.txt") == "begun\n"


async def test_a_killed_slurmd_is_a_failure_of_the_node(slurm: SlurmStack, lost: str) -> None:
    job = await slurm.reached(lost, JobState.FAILURE)
    assert (job.updates[-1].status or "").startswith("A node of the job failed.")
    await slurm.run("follow", lost, code=1)
    await asyncio.to_thread(slurm.cluster.repair)
    await eventually(
        lambda: not slurm.stack.processes_of(lost)
    )  # the node, back again, ends what it still ran


# The last one: what the controller has lost may drain nodes a while later.
async def test_a_killed_slurmctld_changes_no_running_job(slurm: SlurmStack, whole: Cluster) -> None:
    job_id = await slurm.running(f"{UNTIL_GO}; exit 5")
    whole.kill("slurmctld")
    (slurm.folder(job_id) / "work/go").touch()
    await eventually((slurm.folder(job_id) / "replica-0/exit-code").exists)
    # Slurm has not said that it is over: an exit code alone could be that of an attempt that is put
    # back.
    assert (await slurm.jobs.retrieve(job_id)).status.state is JobState.RUNNING
    whole.start_controller()
    assert await slurm.ended(job_id) == "The job has finished with exit code 5."
    assert slurm.stack.output(job_id, "stdout-0.txt") == "begun\n"
