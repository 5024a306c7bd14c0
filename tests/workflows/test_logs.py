"""The logs of jobs for clients: access, waiting, and broken connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from client import Actor, JobClient, JobNotFound, RequestRefused, Unreachable
from tests.conftest import Orchestrator
from tests.waiting import eventually
from ucloud_orchestrator.models import ErrorCode, Job, JobState, ResourceAclEntry
from ucloud_orchestrator.models.provider_api import FollowMessage, LogStream
from ucloud_orchestrator.models.session import SessionItem, SessionType
from ucloud_orchestrator.provider.auth.session_tokens import SessionTokens
from ucloud_orchestrator.provider.jobs.decisions import JobPhase, JobRecord
from ucloud_orchestrator.provider.jobs.metrics import ProviderMetrics
from ucloud_orchestrator.provider.sessions.logs import LogSessions


class BreakingRelay:
    """Proxies connections to a port, and breaks the first ones after some bytes."""

    def __init__(self, port: int, limits: list[int]) -> None:
        self._port = port
        self._limits = limits
        self.connections = 0

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        limit = self._limits.pop(0) if self._limits else 2**60
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        pumps = [
            asyncio.create_task(pump(reader, back, 2**60)),
            asyncio.create_task(pump(there, writer, limit)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for task in pumps:
            task.cancel()
        for end in (writer, back):
            end.transport.abort()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int) -> None:
    with suppress(OSError):
        while limit > 0 and (data := await reader.read(min(limit, 65536))):
            limit -= len(data)
            writer.write(data)
            await writer.drain()


class Output:
    """The log sessions of a real provider on a folder with output, through a relay."""

    def __init__(self, folder: Path) -> None:
        self._drive = folder / "drive"
        self._tokens = SessionTokens(folder / "secret")
        self._logs = LogSessions("/sessions", self._tokens, self, self.folder_of, ProviderMetrics())
        self._jobs: dict[str, JobRecord] = {}
        self.relay = BreakingRelay(0, [])
        self._url = ""

    def folder_of(self, job_id: str) -> Path:
        return self._drive / "Jobs" / job_id

    async def find(self, job_id: str) -> JobRecord | None:
        return self._jobs.get(job_id)

    def add(self, job: Job, ended: bool = True, **files: str) -> None:
        phase = JobPhase.ENDED if ended else JobPhase.RUNNING
        self._jobs[job.id] = JobRecord(job, phase=phase)
        self.folder_of(job.id).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (self.folder_of(job.id) / f"{name}-0.txt").write_text(text)

    async def session(self, job: Job) -> dict[str, Any]:
        session = await self._logs.open(
            SessionItem(job=job, session_type=SessionType.LOGS), self._url
        )
        assert session is not None
        return session.to_wire()

    @asynccontextmanager
    async def served(self, limits: list[int]) -> AsyncIterator[None]:
        app = FastAPI()
        app.include_router(self._logs.router())
        server = uvicorn.Server(
            uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off")
        )
        serving = asyncio.create_task(server._serve())  # without uvicorn's signal handlers
        await eventually(lambda: server.started)
        self.relay = BreakingRelay(server.servers[0].sockets[0].getsockname()[1], limits)
        relaying = await asyncio.start_server(self.relay.pass_on, "127.0.0.1", 0)
        self._url = f"http://127.0.0.1:{relaying.sockets[0].getsockname()[1]}"
        try:
            yield
        finally:
            relaying.close()
            server.should_exit = True
            await serving


async def all_messages(jobs: JobClient, job_id: str, **options: Any) -> list[FollowMessage]:
    async with asyncio.timeout(60):
        return [message async for message in jobs.follow_logs(job_id, **options)]


async def started(orchestrator: Orchestrator, **changes: Any) -> Job:
    job = await orchestrator.created(**changes)
    await orchestrator.report(job.id, JobState.RUNNING)
    return await orchestrator.reached(job.id, JobState.RUNNING)


async def test_broken_connections_neither_repeat_nor_lose_output(
    orchestrator: Orchestrator, tmp_path: Path
) -> None:
    job, output = await started(orchestrator), Output(tmp_path)
    written = "".join(f"{number} æ\n" for number in range(100_000))
    output.add(job, stdout=written, stderr="wrong\n")
    async with output.served([100, 150_000, 400_000]):
        orchestrator.provider.sessions += [await output.session(job) for _ in range(10)]
        messages = await all_messages(orchestrator.jobs, job.id)
    assert output.relay.connections == 4
    assert "".join(message.stdout or "" for message in messages) == written
    assert "".join(message.stderr or "" for message in messages) == "wrong\n"
    (item, *_) = [item for item in orchestrator.provider.items if item.get("sessionType") == "LOGS"]
    assert len(item["challenge"]) == 64
    assert "updates" not in item["job"] or item["job"]["updates"] == []


async def test_the_reader_of_a_job_in_the_queue_waits(
    orchestrator: Orchestrator, tmp_path: Path
) -> None:
    job, output = await orchestrator.created(), Output(tmp_path)
    output.add(job, stdout="out\n", stderr="wrong\n")
    async with output.served([]):
        orchestrator.provider.sessions.append(await output.session(job))
        reading = asyncio.create_task(
            all_messages(orchestrator.jobs, job.id, stream=LogStream.STDOUT)
        )
        assert (
            await all_messages(
                orchestrator.jobs, (await job_without_logs(orchestrator)).id, follow=False
            )
            == []
        )
        assert not reading.done()
        await orchestrator.report(job.id, JobState.RUNNING)
        (message,) = await reading
    assert (message.rank, message.stdout, message.stderr, message.position) == (0, "out\n", None, 4)


async def job_without_logs(orchestrator: Orchestrator) -> Job:
    """Create a job in the queue whose logs the provider does not have yet."""
    job = await orchestrator.created()
    orchestrator.provider.answers["interactiveSession"].append(404)
    return job


async def test_the_logs_of_a_job_that_has_ended(orchestrator: Orchestrator, tmp_path: Path) -> None:
    job, output = await started(orchestrator), Output(tmp_path)
    await orchestrator.report(job.id, JobState.SUCCESS)
    await orchestrator.jobs.wait(job.id)
    output.add(job, stdout="out\n")
    async with output.served([]):
        orchestrator.provider.sessions.append(await output.session(job))
        (message,) = await all_messages(orchestrator.jobs, job.id)
    assert message.stdout == "out\n"


async def test_readers_of_a_job_read_its_logs_and_strangers_do_not(
    orchestrator: Orchestrator, tmp_path: Path
) -> None:
    job, output = await started(orchestrator), Output(tmp_path)
    output.add(job, stdout="out\n")
    bob = JobClient(orchestrator.temporal, Actor(username="bob"))
    with pytest.raises(JobNotFound):
        await all_messages(bob, job.id)
    entry = {"entity": {"type": "user", "username": "bob"}, "permissions": ["READ"]}
    await orchestrator.jobs.update_acl(job.id, [ResourceAclEntry.model_validate(entry)])
    async with output.served([]):
        orchestrator.provider.sessions.append(await output.session(job))
        assert len(await all_messages(bob, job.id)) == 1


async def test_a_product_without_logs_is_rejected_without_a_call(
    orchestrator: Orchestrator,
) -> None:
    for file in orchestrator.catalog.glob("*.yaml"):
        file.write_text(file.read_text().replace("logs: true", "logs: false"))
    job = await started(orchestrator)

    async def code() -> ErrorCode | None:
        try:
            orchestrator.provider.answers["interactiveSession"] = [400]
            await all_messages(orchestrator.jobs, job.id)
        except RequestRefused as error:
            return error.code
        return None

    async def is_rejected() -> bool:  # the catalog is reloaded at an interval
        return await code() is ErrorCode.FEATURE_NOT_SUPPORTED_BY_PROVIDER

    await eventually(is_rejected, 40)
    asked = len(orchestrator.provider.calls_for(job.id))
    assert await is_rejected()
    assert len(orchestrator.provider.calls_for(job.id)) == asked


async def test_logs_that_the_provider_lacks_are_rejected(orchestrator: Orchestrator) -> None:
    job = await started(orchestrator)
    orchestrator.provider.answers["interactiveSession"].append(404)
    with pytest.raises(RequestRefused, match="refused: No, says 404") as rejected:
        await all_messages(orchestrator.jobs, job.id)
    assert rejected.value.code is ErrorCode.PROVIDER_REJECTED
    with pytest.raises(RequestRefused, match="gave a session that is not for logs"):
        await all_messages(orchestrator.jobs, job.id)


async def test_an_unreachable_provider_is_an_error_for_readers(
    orchestrator: Orchestrator, tmp_path: Path
) -> None:
    job, output = await started(orchestrator), Output(tmp_path)
    output.add(job)
    async with output.served([]):
        orchestrator.provider.sessions += [await output.session(job) for _ in range(10)]
    with pytest.raises(Unreachable, match="The job's output cannot be read from its provider"):
        await all_messages(orchestrator.jobs, job.id, timeout=timedelta(seconds=1))
