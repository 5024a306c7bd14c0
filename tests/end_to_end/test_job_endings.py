"""Check which jobs reach each other, and what each kind of end leaves behind, in a whole stack."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from getpass import getuser
from pathlib import Path
from typing import Any

import pytest

from client import JobClient, JobFilter
from tests.builders import PAID, product
from tests.end_to_end.running_stack import Stack
from tests.end_to_end.users import (
    application,
    catalog_of,
    client_of,
    ended,
    job_file,
    reached,
    running,
)
from tests.provider.network_fixtures import separate
from tests.provider.web_jobs import PYTHON, SYSTEM_FOLDERS
from tests.waiting import eventually
from ucloud_orchestrator.models import JobState
from ucloud_orchestrator.models.accounting import Account
from ucloud_orchestrator.models.product import ProductCategory
from ucloud_orchestrator.models.workspace import Workspace

pytestmark = pytest.mark.long

LISTEN = """
import socket
server = socket.create_server(("0.0.0.0", 7000))
print("listening at", open("/etc/ucloud/node-0.txt").read().strip(), flush=True)
while True:
    connection, _ = server.accept()
    with connection, connection.makefile("rw") as stream:
        received = stream.readline().strip()
        print("received", received, flush=True)
        stream.write(f"welcome, {received}\\n")
"""
SPEAK = """
import os, socket, sys
for host in sys.argv[1].split():
    try:
        connection = socket.create_connection((host, 7000), timeout=2)
        with connection, connection.makefile("rw") as stream:
            stream.write(os.environ["UCLOUD_JOB_ID"] + "\\n")
            stream.flush()
            print(host, stream.readline().strip(), flush=True)
    except OSError as error:
        print(host, "is not reached:", type(error).__name__, flush=True)
"""
WORK = """
mkdir -p deep/er; echo scratch > deep/er/file; echo "$1" > bound/"$1"
echo changed 2>/dev/null > given.txt
case "$1" in success) exit 0;; exit) exit 3;; esac
sleep 300
"""
"""Writes files to its folder and to its user's folder, and tries to change a read-only file."""
TEXT = {"text": {"type": "text"}}
CATALOG = catalog_of(
    application("listener", "BATCH", PYTHON, "-c", LISTEN),
    application(
        "speaker", "BATCH", PYTHON, "-c", SPEAK, {"type": "var", "vars": "text"}, parameters=TEXT
    ),
    application(
        "worker",
        "BATCH",
        *("sh", "-c", WORK, "worker", {"type": "var", "vars": "text"}),
        parameters=TEXT,
        allowAdditionalMounts=True,
        allowPublicLink=True,
        allowPublicIp=True,
    ),
    {
        "publicLink": "v1",
        "id": "my-app",
        "domain": "my-app.example.com",
        "provider": "local",
        "public": ["EDIT"],
    },
    {
        "product": "v1",
        "name": "queue-1",
        "category": {"name": "queue", "provider": "local"},
        "freeToUse": True,
        "support": {"native": {"enabled": True}},
    },
    {
        "publicIp": "v1",
        "id": "my-ip",
        "address": "192.0.2.1",
        "provider": "local",
        "public": ["EDIT"],
    },
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a stack that charges jobs every second, with a product whose Slurm does not answer."""
    folder = tmp_path_factory.mktemp("ends")
    settings = folder / "provider.toml"
    settings.write_text(
        'executors = [{product = "queue-1", category = "queue", executor = "slurm"}]'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UCLOUD_PROVIDER_CHARGE_INTERVAL", "1")
        patch.setenv("UCLOUD_PROVIDER_CONFIG", str(settings))
        patch.setenv("SLURM_CONF", os.devnull)
        if not PYTHON.startswith(SYSTEM_FOLDERS):
            patch.setenv("UCLOUD_PROVIDER_SYSTEM_FOLDERS", json.dumps([sys.base_prefix]))
        running = Stack(folder, CATALOG)
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture(scope="module")
async def client(stack: Stack) -> JobClient:
    return await client_of(stack)


def speaking(stack: Stack, hosts: str, **changes: Any) -> Path:
    return job_file(
        stack, "speaker", parameters={"text": {"type": "text", "value": hosts}}, **changes
    )


@separate
async def test_only_peers_reach_each_other(stack: Stack, client: JobClient) -> None:
    listener = await running(stack, client, job_file(stack, "listener"))

    def listens() -> str:
        return (
            stack.output(listener, "stdout-0.txt").partition("\n")[0].removeprefix("listening at ")
        )

    address = await eventually(listens)
    peer = {"type": "peer", "hostname": "database", "jobId": listener}
    rejected = stack.run(
        "submit", str(speaking(stack, "database", resources=[peer])), "--user", "bob"
    )
    assert (rejected.returncode, rejected.stderr) == (
        2,
        f"There is no job {listener} for the peer database.\n",
    )
    hosts = f"database {address}"
    jobs = []
    for resources in ([], [peer]):
        speaker = str(stack.json("submit", str(speaking(stack, hosts, resources=resources)))["id"])
        assert (await client.wait(speaker)).status.state is JobState.SUCCESS
        jobs.append(speaker)
    stranger, related = (stack.output(speaker, "stdout-0.txt").splitlines() for speaker in jobs)
    assert [line.partition(":")[0] for line in stranger] == [
        "database is not reached",
        f"{address} is not reached",
    ]
    assert related == [f"database welcome, {jobs[1]}", f"{address} welcome, {jobs[1]}"]
    assert stack.output(listener, "stdout-0.txt").splitlines()[1:] == [f"received {jobs[1]}"] * 2
    await ended(client, listener)


class Files:
    """A user's files on a drive, which jobs mount."""

    def __init__(self, folder: Path) -> None:
        self.bound, self.given = folder / "bound", folder / "given.txt"
        (self.bound / "deep").mkdir(parents=True)
        (self.bound / "deep" / "mine").write_text("mine")
        self.given.write_text("given")
        self.written: set[str] = set()
        self._before = self._seen()

    @property
    def values(self) -> list[dict[str, Any]]:
        """Return the files as resources of a job."""
        return [
            {"type": "file", "path": "/examples/bound", "readOnly": False},
            {"type": "file", "path": "/examples/given.txt", "readOnly": True},
        ]

    def are_whole(self) -> bool:
        """Return whether the files are unchanged, but for those that the jobs wrote."""
        names = {entry.name for entry in self.bound.iterdir()}
        texts = {name: (self.bound / name).read_text() for name in self.written}
        assert texts == {name: f"{name}\n" for name in self.written}
        assert names == {"deep", *self.written}
        return self._seen() == self._before

    def _seen(self) -> list[tuple[str, int, int, str]]:
        found = []
        for path in (self.bound / "deep" / "mine", self.given):
            facts = path.stat()
            found.append((path.name, facts.st_ino, facts.st_mtime_ns, path.read_text()))
        return found


@pytest.fixture(scope="module")
def files(stack: Stack) -> Files:
    return Files(stack.folder / "files")


def working(
    stack: Stack, files: Files, name: str, *resources: dict[str, Any], **changes: Any
) -> Path:
    files.written.add(name)
    text = {"text": {"type": "text", "value": name}}
    return job_file(
        stack, "worker", parameters=text, resources=[*files.values, *resources], **changes
    )


async def works(stack: Stack, files: Files, job_id: str, name: str) -> None:
    """Wait until the job has written its files."""
    scratch = stack.folder / "provider" / "jobs" / job_id / "work" / "deep" / "er" / "file"
    await eventually(lambda: scratch.exists() and (files.bound / name).exists())


async def left_nothing_but_its_logs(stack: Stack, files: Files, job_id: str) -> None:
    await eventually(lambda: stack.nothing_is_left_of(job_id), 40)
    output = stack.folder / "provider" / "drives" / "home" / "Jobs" / job_id
    assert {entry.name for entry in output.iterdir()} == {"stdout-0.txt", "stderr-0.txt"}
    assert files.are_whole()


async def test_every_end_deletes_only_the_jobs_own_files(
    stack: Stack, client: JobClient, files: Files
) -> None:
    seconds = {"timeAllocation": {"hours": 0, "minutes": 0, "seconds": 5}}
    ends = {
        "success": ({}, JobState.SUCCESS, "exit code 0"),
        "exit": ({}, JobState.SUCCESS, "exit code 3"),
        "expiry": (seconds, JobState.EXPIRED, "time allocation ran out"),
        "cancel": ({}, JobState.SUCCESS, "cancelled"),
        "failure": ({}, JobState.FAILURE, "vanished"),
    }
    jobs = {}
    for name, (changes, _, _) in ends.items():
        jobs[name] = str(stack.json("submit", str(working(stack, files, name, **changes)))["id"])
    for name in ("cancel", "failure"):
        await works(stack, files, jobs[name], name)
    await client.cancel(jobs["cancel"])
    await reached(client, jobs["failure"], JobState.RUNNING)
    for process in stack.processes_of(
        jobs["failure"]
    ):  # as the machine might, when it runs out of memory
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    for name, (_, state, text) in ends.items():
        job = await client.wait(jobs[name])
        assert (job.status.state, text in (job.updates[-1].status or "")) == (state, True), (
            job.updates
        )
    for job_id in jobs.values():
        await left_nothing_but_its_logs(stack, files, job_id)


async def test_a_forced_end_leaves_nothing_after_one_check(
    stack: Stack, client: JobClient, files: Files
) -> None:
    await client.grant(
        Workspace(user=getuser()), ProductCategory(name="paid", provider="local"), 100
    )
    bound = [{"type": "ingress", "id": "my-app"}, {"type": "network", "id": "my-ip"}]
    paid = {"product": PAID}
    file = working(stack, files, "forced", *bound, **paid)
    job_id = await running(stack, client, file)
    await works(stack, files, job_id, "forced")

    async def spent() -> int:
        (wallet,) = (await client.wallets()).wallets
        assert (wallet.available, wallet.reserved + wallet.spent) == (40, 60)
        return wallet.spent

    await eventually(spent)  # its first minute
    stack.temporal("workflow", "terminate", "-w", job_id)
    assert stack.processes_of(job_id)
    rejected = stack.run("submit", str(file))
    assert rejected.returncode == 2
    assert [
        f"is in use by the job {job_id}" in rejected.stderr,
        "does not cover" in rejected.stderr,
    ] == [True, True]
    stack.temporal("schedule", "trigger", "--schedule-id", "check-local")
    await reached(client, job_id, JobState.FAILURE)
    await left_nothing_but_its_logs(stack, files, job_id)
    accounts = await client.wallets(100)
    (wallet,) = accounts.wallets
    assert (wallet.available, wallet.reserved) == (100 - wallet.spent, 0)
    sums = dict.fromkeys(Account, 0)
    for movement in accounts.movements:
        sums[movement.source] -= movement.amount
        sums[movement.target] += movement.amount
    left = {Account.AVAILABLE: wallet.available, Account.RESERVED: 0, Account.SPENT: wallet.spent}
    assert sums == {Account.GRANTED: -100} | left
    again = await running(stack, client, file)
    assert (
        await client.holder("ingress", "my-app") == await client.holder("network", "my-ip") == again
    )
    await ended(client, again)
    await left_nothing_but_its_logs(stack, files, again)


async def test_a_lost_queued_job_ends_at_the_next_check(stack: Stack, client: JobClient) -> None:
    queue = {"product": product("queue")}
    file = speaking(stack, "stranger", **queue)
    lost, kept = (str(stack.json("submit", str(file))["id"]) for _ in range(2))

    async def waits(job_id: str) -> bool:
        listed = await client.browse(JobFilter(state=JobState.IN_QUEUE))
        texts = [update.status or "" for update in (await client.retrieve(job_id)).updates]
        return job_id in [job.id for job in listed] and any(
            "waits to be submitted" in text for text in texts
        )

    for job_id in (lost, kept):
        await eventually(lambda job_id=job_id: waits(job_id), 40)  # type: ignore[misc]
    with (
        closing(
            sqlite3.connect(stack.folder / "provider" / "provider.sqlite", timeout=10)
        ) as memory,
        memory,
    ):
        assert memory.execute("DELETE FROM jobs WHERE id = ?", [lost]).rowcount == 1
    stack.temporal("schedule", "trigger", "--schedule-id", "check-local")
    job = await reached(client, lost, JobState.FAILURE)
    assert job.updates[-1].status == "Your job is no longer available at the provider."
    assert (await client.retrieve(kept)).status.state is JobState.IN_QUEUE
