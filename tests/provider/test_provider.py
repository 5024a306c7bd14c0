"""The provider alone: its protocol over real HTTP, with real processes in real sandboxes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import jwt
import psutil
import pytest
import uvicorn
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import InvalidStatus

from client import JobClosed
from models import JobState, JobUpdate
from models.names import new_job_id
from models.protocol import Charge, ChargeAnswer, ChargeId
from provider.server import create_server
from provider.settings import ProviderSettings
from tests.conditions import eventually
from worker import make_keys


class Reports:
    """Takes reports, unless told not to."""

    def __init__(self) -> None:
        self.taken: dict[str, list[JobUpdate]] = {}
        self.charges: dict[str, list[Charge]] = {}
        self.is_down = False
        self.is_broke = False
        self.closed: set[str] = set()

    async def update(self, job_id: str, updates: Sequence[JobUpdate]) -> None:
        if self.is_down:
            raise ConnectionError("down")
        if job_id in self.closed:
            raise JobClosed("closed")
        self.taken.setdefault(job_id, []).extend(updates)

    async def charge(self, job_id: str, charges: Sequence[Charge]) -> ChargeAnswer:
        if self.is_down:
            raise ConnectionError("down")
        self.charges.setdefault(job_id, []).extend(charges)
        lacking = [ChargeId(id=charge.charge_id) for charge in charges] if self.is_broke else []
        return ChargeAnswer(insufficient_funds=lacking, duplicate_charges=[])

    def ended(self, job_id: str) -> JobUpdate | None:
        return next(
            (update for update in self.taken.get(job_id, []) if update.state and update.state.is_terminal), None
        )


class Served:
    """A provider that is served, and how to speak to it."""

    def __init__(self, folder: Path, reports: Reports) -> None:
        self.folder = folder
        self.reports = reports
        self.url = ""
        make_keys(folder / "keys", "local")
        (folder / "drive").mkdir(exist_ok=True)
        self.settings = ProviderSettings(
            data_dir=folder / "provider",
            public_key_file=folder / "keys" / "local.public.pem",
            drives={"data": folder / "drive"},
        )

    def token(self, algorithm: str = "RS256", key: Any = None, **changes: Any) -> str:
        now = int(time.time())
        claims = {"iss": "cloud.sdu.dk", "sub": "_UCloud", "role": "SERVICE", "iat": now, "exp": now + 60} | changes
        claims = {name: value for name, value in claims.items() if value is not None}
        key = (self.folder / "keys" / "local.private.pem").read_text() if key is None else key
        return jwt.encode(claims, key, algorithm=algorithm)

    async def call(self, call: str, *items: Any, token: str | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token() if token is None else token}"}
        async with httpx.AsyncClient(base_url=f"{self.url}/ucloud/local/jobs", headers=headers) as client:
            if call.startswith("retrieve"):
                return await client.get(f"/{call}")
            return await client.post(f"/{call}", json={"items": list(items)})

    async def end_of(self, job: dict[str, Any]) -> JobUpdate:
        update = await eventually(lambda: self.reports.ended(job["id"]))
        assert update is not None
        return update

    def output(self, job: dict[str, Any], name: str) -> str:
        return (self.folder / "provider" / "drives" / "home" / "Jobs" / job["id"] / name).read_text()

    def processes_of(self, job: dict[str, Any]) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if any(job["id"] in word for word in process.info["cmdline"] or ()):
                found.append(process)
        return found


@contextlib.asynccontextmanager
async def serving(served: Served) -> AsyncIterator[Served]:
    config = uvicorn.Config(create_server(served.settings, served.reports), host="127.0.0.1", port=0, log_level="error")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())  # without uvicorn's signal handlers
    await eventually(lambda: server.started)
    served.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield served
    finally:
        server.should_exit = True
        await task


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(Served(tmp_path, Reports())) as served:
        yield served


def shell(script: str, replicas: int = 1, **changes: Any) -> dict[str, Any]:
    """A job that runs a script of `sh`."""
    application = {
        "title": "t",
        "name": "a",
        "version": "1",
        "authors": [],
        "description": "",
        "tool": {"name": "t", "version": "1"},
        "invocation": ["sh", "-c", script],
        "allowMultiNode": True,
        "parameters": {
            "input": {"type": "input_file", "optional": True},
            "more": {"type": "input_file", "optional": True},
        },
    }
    tool = {
        "title": "t",
        "name": "t",
        "version": "1",
        "authors": [],
        "backend": "NATIVE",
        "defaultMaxTime": {"hours": 1},
    }
    specification = {
        "application": {"name": "a", "version": "1"},
        "product": {"id": "cpu-1", "category": "cpu", "provider": "local"},
        "replicas": replicas,
        "timeAllocation": {"hours": 1},
    }
    return {
        "id": new_job_id(),
        "owner": {"createdBy": "alice"},
        "createdAt": 1,
        "specification": specification | changes,
        "status": {"state": "IN_QUEUE", "resolvedApplication": {"application": application, "tool": tool}},
    }


async def test_a_job_runs_and_is_reported(provider: Served) -> None:
    job = shell("echo out; echo err >&2; echo kept > result.txt; pwd")
    answer = await provider.call("", job)
    assert answer.json()["responses"][0]["id"] == job["id"]
    end = await provider.end_of(job)
    assert (end.state, end.output_folder) == (JobState.SUCCESS, f"/home/Jobs/{job['id']}")
    assert provider.output(job, "stdout-0.txt") == "out\n/work\n"
    assert provider.output(job, "stderr-0.txt") == "err\n"
    assert provider.output(job, "result.txt") == "kept\n"
    assert not (provider.folder / "provider" / "jobs" / job["id"]).exists()


async def test_a_repeat_does_not_start_it_twice(provider: Served) -> None:
    job = shell("echo once")
    answers = await asyncio.gather(*(provider.call("", job) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    await provider.end_of(job)
    assert (await provider.call("", job)).status_code == 200
    assert provider.output(job, "stdout-0.txt") == "once\n"


async def test_a_batch_is_taken_as_a_whole_or_not(provider: Served) -> None:
    good, bad = shell("true"), shell("true", product={"id": "no", "category": "cpu", "provider": "local"})
    answer = await provider.call("", good, bad)
    assert answer.status_code == 400
    assert "There is no product no/cpu@local here." in answer.json()["why"]
    await provider.call("verify", good)
    end = await provider.end_of(good)
    assert (end.state, end.status) == (JobState.FAILURE, "Your job is no longer available at the provider.")


async def test_terminate_ends_the_whole_tree(provider: Served) -> None:
    job = shell("trap '' TERM; sleep 300 & sleep 300 & sleep 300")
    await provider.call("", job)
    await eventually(lambda: len(provider.processes_of(job)) > 1)
    processes = [
        child for process in provider.processes_of(job) for child in [process, *process.children(recursive=True)]
    ]
    began = time.monotonic()
    assert (await provider.call("terminate", job)).status_code == 200
    await eventually(lambda: not any(process.is_running() for process in processes))
    assert time.monotonic() - began < 5
    assert (await provider.end_of(job)).status == "Your job has been cancelled!"


async def test_a_job_that_was_terminated_before_is_never_started(provider: Served) -> None:
    job = shell("echo never")
    assert (await provider.call("terminate", job)).status_code == 200
    assert (await provider.call("", job)).status_code == 409
    assert not (provider.folder / "provider" / "drives" / "home" / "Jobs" / job["id"]).exists()


async def test_replicas_and_their_files(provider: Served) -> None:
    job = shell("cd /etc/ucloud; cat rank.txt cores.txt number_of_nodes.txt job_id.txt; ls; cat node-*.txt", replicas=3)
    await provider.call("", job)
    await provider.end_of(job)
    for rank in range(3):
        lines = provider.output(job, f"stdout-{rank}.txt").splitlines()
        assert lines[:4] == [str(rank), "1", "3", job["id"]]
        assert lines[-3:] == ["127.0.0.1"] * 3


async def test_a_replica_that_fails_ends_the_job(provider: Served) -> None:
    job = shell('[ "$(cat /etc/ucloud/rank.txt)" = 1 ] && exit 3; sleep 300', replicas=3)
    await provider.call("", job)
    end = await provider.end_of(job)
    assert end.state is JobState.SUCCESS
    assert "rank 1: 3" in (end.status or "")
    assert "Rank 1 ended the job." in (end.status or "")
    assert provider.processes_of(job) == []


async def test_a_read_only_input_stays_as_it_is(provider: Served) -> None:
    (provider.folder / "drive" / "in.txt").write_text("given\n")
    given = {"type": "file", "path": "/data/in.txt", "readOnly": True}
    job = shell("cat in.txt; echo changed > in.txt || echo refused", parameters={"input": given})
    await provider.call("", job)
    await provider.end_of(job)
    assert provider.output(job, "stdout-0.txt") == "given\nrefused\n"
    assert (provider.folder / "drive" / "in.txt").read_text() == "given\n"
    assert not (provider.folder / "provider/drives/home/Jobs" / job["id"] / "in.txt").exists()


@pytest.mark.parametrize(
    "path", ["/data/missing", "/nodrive/x", "/data", "/data/link/passwd", "/data/hosts", "/data/new\nline"]
)
async def test_a_path_never_leaves_its_drive(provider: Served, path: str) -> None:
    (provider.folder / "drive" / "link").symlink_to("/etc")
    (provider.folder / "drive" / "hosts").symlink_to("/etc/hosts")
    answer = await provider.call("", shell("true", parameters={"input": {"type": "file", "path": path}}))
    assert answer.status_code == 400
    assert "drive" in answer.json()["why"] or "There is no file" in answer.json()["why"]


async def test_a_path_with_dots_is_refused(provider: Served) -> None:
    path = "/data/../../etc/passwd"
    answer = await provider.call("", shell("true", parameters={"input": {"type": "file", "path": path}}))
    assert (answer.status_code, ".." in answer.json()["why"]) == (400, True)


async def test_the_sandbox_hides_the_machine(provider: Served) -> None:
    job = shell(f"ls {provider.folder} /root /home; ls -d /proc/[0-9]* | wc -l; id -u; touch /usr/x /etc/x || true")
    await provider.call("", job)
    await provider.end_of(job)
    assert "provider.sqlite" not in provider.output(job, "stdout-0.txt")
    assert provider.output(job, "stderr-0.txt").count("Read-only file system") >= 1
    assert int(provider.output(job, "stdout-0.txt").splitlines()[0]) < 10


async def test_suspend_and_unsuspend(provider: Served) -> None:
    job = shell("i=0; while true; do i=$((i+1)); echo $i; sleep 0.05; done")
    await provider.call("", job)
    await eventually(lambda: len(provider.output(job, "stdout-0.txt")) > 10)
    assert (await provider.call("suspend", {"job": job})).status_code == 200
    states = await eventually(lambda: [p.status() for p in provider.processes_of(job) for p in p.children(True)])
    assert psutil.STATUS_STOPPED in states
    assert (await provider.call("unsuspend", {"job": job})).status_code == 200
    written = len(provider.output(job, "stdout-0.txt"))
    await eventually(lambda: len(provider.output(job, "stdout-0.txt")) > written)
    await provider.call("terminate", job)
    await provider.end_of(job)
    assert (await provider.call("suspend", {"job": job})).status_code == 404


async def test_an_extension_may_be_repeated(provider: Served) -> None:
    job = shell("sleep 300")
    await provider.call("", job)
    for _ in range(2):
        answer = await provider.call("extend", {"job": job, "requestedTime": {"hours": 2}})
        assert answer.status_code == 200
    await provider.call("terminate", job)
    await provider.end_of(job)


async def test_reports_wait_until_they_are_taken(provider: Served) -> None:
    provider.reports.is_down = True
    jobs = [shell("true"), shell("true")]
    await provider.call("", *jobs)
    await eventually(lambda: (provider.folder / "provider/drives/home/Jobs" / jobs[1]["id"]).exists())
    provider.reports.closed.add(jobs[0]["id"])
    provider.reports.is_down = False
    await provider.end_of(jobs[1])
    assert jobs[0]["id"] not in provider.reports.taken


async def test_a_restart_finds_jobs_alive_and_dead(tmp_path: Path) -> None:
    served = Served(tmp_path, Reports())
    quick, slow, lost = shell("sleep 1; exit 7"), shell("sleep 3; echo done"), shell("sleep 300")
    async with serving(served):
        await served.call("", quick, slow, lost)
        await eventually(lambda: all(len(served.processes_of(job)) > 1 for job in (quick, slow, lost)))
    for process in served.processes_of(lost):
        process.kill()
    await eventually(lambda: not served.processes_of(quick))
    assert served.processes_of(slow)
    async with serving(served):
        assert "exit code 7" in ((await served.end_of(quick)).status or "")
        assert "exit code 0" in ((await served.end_of(slow)).status or "")
        assert (await served.end_of(lost)).state is JobState.FAILURE
        assert served.output(slow, "stdout-0.txt") == "done\n"


async def test_products_and_utilization(provider: Served) -> None:
    products = (await provider.call("retrieveProducts")).json()["responses"]
    assert products[0]["product"] == {"id": "cpu-1", "category": "cpu", "provider": "local"}
    assert products[0]["support"]["native"]["enabled"] is True
    utilization = (await provider.call("retrieveUtilization")).json()
    assert utilization["capacity"]["memory"] > utilization["usedCapacity"]["memory"] > 0


async def test_follow_gives_what_was_written_and_what_comes(provider: Served) -> None:
    job = shell("echo before; sleep 1; echo after; echo wrong >&2", replicas=2)
    await provider.call("", job)
    await eventually(lambda: provider.output(job, "stdout-1.txt") == "before\n")
    url = f"{provider.url.replace('http', 'ws')}/ucloud/local/jobs/follow"
    heard: dict[tuple[int, str], str] = {}
    async with connect_websocket(url, additional_headers={"Authorization": f"Bearer {provider.token()}"}) as socket:
        await socket.send(json.dumps({"type": "init", "job": job}))
        async for text in socket:
            message = json.loads(text)
            for stream in ("stdout", "stderr"):
                key = (message["rank"], stream)
                heard[key] = heard.get(key, "") + message.get(stream, "")
    for rank in range(2):
        assert (heard[rank, "stdout"], heard[rank, "stderr"]) == ("before\nafter\n", "wrong\n")


async def test_follow_needs_a_token(provider: Served) -> None:
    url = f"{provider.url.replace('http', 'ws')}/ucloud/local/jobs/follow"
    with pytest.raises(InvalidStatus):
        async with connect_websocket(url):
            pass


OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
NOW = int(time.time())


@pytest.mark.parametrize(
    "changes",
    [
        {"key": OTHER_KEY},
        {"algorithm": "HS256", "key": "x" * 64},
        {"algorithm": "none", "key": ""},
        {"iss": "somebody.else"},
        {"sub": "alice"},
        {"role": "USER"},
        {"role": None},
        {"iss": None},
        {"sub": None},
        {"iat": None},
        {"exp": None},
        {"exp": NOW - 120},
        {"iat": NOW + 3600, "exp": NOW + 7200},
    ],
    ids=str,
)
async def test_another_token_is_refused(provider: Served, changes: dict[str, Any]) -> None:
    answer = await provider.call("retrieveProducts", token=provider.token(**changes))
    assert answer.status_code == 401
    assert answer.json()["why"]


@pytest.mark.parametrize("authorization", ["", "Bearer", "Basic abc", "Bearer abc"])
async def test_no_token_is_refused(provider: Served, authorization: str) -> None:
    async with httpx.AsyncClient() as client:
        url = f"{provider.url}/ucloud/local/jobs/retrieveProducts"
        assert (await client.get(url, headers={"Authorization": authorization})).status_code == 401


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"items": []}', b'{"items": [1]}', b'{"items": [{"id": "x"}]}'])
@pytest.mark.parametrize("call", ["", "terminate", "extend", "suspend", "verify"])
async def test_a_bad_body_is_a_400_that_says_why(provider: Served, call: str, body: bytes) -> None:
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {provider.token()}"}) as client:
        answer = await client.post(f"{provider.url}/ucloud/local/jobs/{call}", content=body)
    assert answer.status_code == 400
    assert answer.json()["why"]


PRICED = {"name": "cpu-1", "category": {"name": "cpu", "provider": "local"}, "pricePerUnit": 1}


def paid(job: dict[str, Any]) -> dict[str, Any]:
    return job | {"status": job["status"] | {"resolvedProduct": PRICED}}


async def test_a_job_is_charged_before_its_end_is_reported(provider: Served) -> None:
    job, free = paid(shell("true", replicas=2)), shell("true")
    provider.reports.is_down = True
    await provider.call("", job, free)
    await eventually(lambda: not (provider.folder / "provider" / "jobs" / job["id"]).exists())
    provider.reports.is_down = False
    await provider.end_of(job)
    await provider.end_of(free)
    assert provider.reports.charges == {job["id"]: [Charge(charge_id="1-1", units=1, periods=2)]}


async def test_a_job_without_credits_is_stopped(tmp_path: Path) -> None:
    served = Served(tmp_path, Reports())
    served.settings = served.settings.model_copy(update={"charge_interval": 0.5})
    served.reports.is_broke = True
    job = paid(shell("sleep 300"))
    async with serving(served):
        await served.call("", job)
        await served.end_of(job)
        texts = [update.status for update in served.reports.taken[job["id"]]]
        assert "Your job has been terminated (No more credits)." in texts
        assert served.processes_of(job) == []
