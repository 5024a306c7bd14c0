"""The output of jobs over WebSockets: complete, once, with backpressure, never through a link."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import InvalidStatus

from tests.builders import shell_job
from tests.provider.provider_process import Served
from tests.waiting import eventually
from ucloud_orchestrator.models.provider_api import LogStream
from ucloud_orchestrator.models.session import SessionType
from ucloud_orchestrator.provider.auth.session_tokens import Session, SessionTokens
from ucloud_orchestrator.provider.sessions.log_files import CHUNK_SIZE, LogChunk, Selection, chunks

MEGABYTE = 1024 * 1024


async def address(provider: Served, job: dict[str, Any], **more: Any) -> str:
    item = {"job": job, "rank": 0, "sessionType": "LOGS"} | more
    answer = await provider.call("interactiveSession", item)
    assert answer.status_code == 200, answer.text
    (session,) = answer.json()["responses"]
    assert (session["type"], session["jobId"]) == ("logs", job["id"])
    return str(session["url"])


@asynccontextmanager
async def reading(
    provider: Served, job: dict[str, Any], **request: Any
) -> AsyncIterator[ClientConnection]:
    async with connect_websocket(await address(provider, job), compression=None) as socket:
        await socket.send(json.dumps({"type": "init"} | request))
        yield socket


class Received:
    """The received text and positions, by rank and stream."""

    def __init__(self) -> None:
        self.text: dict[str, str] = {}
        self.positions: dict[str, int] = {}
        self.has_ended = False

    def add(self, text: str | bytes) -> None:
        message = json.loads(text)
        assert not self.has_ended
        for stream in {"stdout", "stderr"} & message.keys():
            key = f"{message['rank']}.{stream}"
            self.text[key] = self.text.get(key, "") + message[stream]
            self.positions[key] = message["position"]
        self.has_ended = message.get("ended", False)


async def read_all(provider: Served, job: dict[str, Any], **request: Any) -> Received:
    received = Received()
    async with asyncio.timeout(40), reading(provider, job, **request) as socket:
        async for text in socket:
            received.add(text)
    assert received.has_ended
    return received


async def test_logs_have_old_and_new_output_with_positions(provider: Served) -> None:
    job = shell_job(
        'echo before; while [ ! -e "$UCLOUD_JOB_ID" ]; do sleep 0.1; done; echo æ; echo no >&2',
        replicas=2,
    )
    await provider.call("", job)
    received = Received()
    async with asyncio.timeout(40), reading(provider, job) as socket:
        while received.text != {"0.stdout": "before\n", "1.stdout": "before\n"}:
            received.add(await socket.recv())
        (provider.folder / "provider" / "jobs" / job["id"] / "work" / job["id"]).touch()
        async for text in socket:
            received.add(text)
    assert received.has_ended
    for rank in range(2):
        assert (received.text[f"{rank}.stdout"], received.text[f"{rank}.stderr"]) == (
            "before\næ\n",
            "no\n",
        )
        assert (received.positions[f"{rank}.stdout"], received.positions[f"{rank}.stderr"]) == (
            10,
            3,
        )


async def test_logs_are_complete_after_the_end_and_selectable(provider: Served) -> None:
    job = shell_job("echo out; echo wrong >&2", replicas=2)
    await provider.call("", job)
    await provider.end_of(job)
    assert len((await read_all(provider, job)).text) == 4
    assert (await read_all(provider, job, rank=1)).text == {
        "1.stdout": "out\n",
        "1.stderr": "wrong\n",
    }
    assert (await read_all(provider, job, rank=1, stream="stderr")).text == {"1.stderr": "wrong\n"}
    assert (await read_all(provider, job, rank=2)).text == {}


async def test_without_follow_only_existing_output_is_sent(provider: Served) -> None:
    job = shell_job("echo now; sleep 300")
    await provider.call("", job)
    await eventually(lambda: len(provider.processes_of(job)) > 1)
    await eventually(lambda: provider.output(job, "stdout-0.txt") == "now\n")
    assert (await read_all(provider, job, follow=False)).text == {"0.stdout": "now\n"}
    await provider.call("terminate", job)
    await provider.end_of(job)


async def test_a_reader_continues_at_its_positions(provider: Served) -> None:
    job = shell_job("seq 100000; echo ende >&2")
    await provider.call("", job)
    await provider.end_of(job)
    first = Received()
    async with reading(provider, job, stream="stdout") as socket:
        for _ in range(3):
            first.add(await socket.recv())
    rest = await read_all(provider, job, positions=first.positions)
    assert first.text["0.stdout"] + rest.text["0.stdout"] == "".join(
        f"{number}\n" for number in range(1, 100001)
    )
    assert rest.text["0.stderr"] == "ende\n"
    assert "0.stdout" not in (await read_all(provider, job, positions=rest.positions)).text


async def test_a_position_never_cuts_a_character(tmp_path: Path) -> None:
    folder = job_folder(tmp_path)
    text = "a" + "€" * CHUNK_SIZE
    (folder / "stdout-0.txt").write_text(text)
    found = await all_chunks(folder, Selection([0], [LogStream.STDOUT]))
    assert "".join(chunk.text for chunk in found) == text
    beginning = "".join(chunk.text for chunk in found[:2])
    assert found[1].position == len(beginning.encode())
    rest = await all_chunks(
        folder, Selection([0], [LogStream.STDOUT], {"0.stdout": found[1].position})
    )
    assert beginning + "".join(chunk.text for chunk in rest) == text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"no line's end", "no line's end"),
        (b"50%\r100%\r\n", "50%\r100%\r\n"),
        (b"\0a\0", "\0a\0"),
        (b"\x1b[31mred", "\x1b[31mred"),
        (b"\xff\xfe, then more", "\ufffd\ufffd, then more"),
        (b"cut \xe2\x82", "cut \ufffd"),
        ("\N{BYTE ORDER MARK}x".encode(), "\N{BYTE ORDER MARK}x"),
    ],
)
async def test_output_that_is_not_plain_text(tmp_path: Path, data: bytes, text: str) -> None:
    folder = job_folder(tmp_path)
    (folder / "stdout-0.txt").write_bytes(data)
    found = await all_chunks(folder, Selection([0]))
    assert "".join(chunk.text for chunk in found) == text
    assert found[-1].position == len(data)


async def test_ranks_take_turns(tmp_path: Path) -> None:
    folder = job_folder(tmp_path)
    (folder / "stdout-0.txt").write_bytes(b"0" * 5 * CHUNK_SIZE)
    (folder / "stdout-1.txt").write_bytes(b"1" * CHUNK_SIZE)
    found = await all_chunks(folder, Selection([0, 1]))
    assert [chunk.rank for chunk in found] == [0, 1, 0, 0, 0, 0]


async def test_a_restarted_job_is_read_from_the_start(tmp_path: Path) -> None:
    folder = job_folder(tmp_path)
    file = folder / "stdout-0.txt"
    file.write_text("the first time")
    ended = False

    async def has_ended() -> bool:
        return ended

    reader = chunks(folder, Selection([0]), has_ended)
    assert (await anext(reader)).text == "the first time"
    file.write_text("again")
    assert await anext(reader) == LogChunk(0, LogStream.STDOUT, "again", 5)
    ended = True
    assert [chunk async for chunk in reader] == []


@pytest.mark.parametrize("trick", ["link", "pipe", "folder", "linked folder"])
async def test_only_plain_log_files_are_read(tmp_path: Path, trick: str) -> None:
    folder = job_folder(tmp_path)
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "stdout-0.txt").write_text("secret")
    log = folder / "stdout-0.txt"
    match trick:
        case "link":
            log.symlink_to(secret / "stdout-0.txt")
        case "pipe":
            os.mkfifo(log)
        case "folder":
            log.mkdir()
        case _:
            folder.rmdir()
            folder.symlink_to(secret)
    assert await all_chunks(folder, Selection([0])) == []


async def test_a_log_session_needs_its_own_token_once(provider: Served) -> None:
    job = shell_job("echo out")
    await provider.call("", job)
    await provider.end_of(job)
    base = f"{provider.url.replace('http', 'ws')}/ucloud/local/sessions/logs"
    tokens = SessionTokens(provider.settings.data_dir / "session-secret")
    used = await address(provider, job)
    async with connect_websocket(used):
        pass
    rejected = {
        base: 401,
        f"{base}?token=x": 401,
        f"{base}?token={tokens.issue(Session(job['id'], 0, SessionType.LOGS), lifetime=-10)}": 401,
        f"{base}?token={tokens.issue(Session(job['id'], 0, SessionType.SHELL))}": 403,
        used: 401,
        await address(provider, job, challenge="0" * 64): 401,
    }
    for url, status in rejected.items():
        with pytest.raises(InvalidStatus) as error:
            async with connect_websocket(url):
                pass
        assert error.value.response.status_code == status, url


async def test_an_unknown_job_has_no_logs(provider: Served) -> None:
    answer = await provider.call(
        "interactiveSession", {"job": shell_job("true"), "rank": 0, "sessionType": "LOGS"}
    )
    assert answer.status_code == 404
    assert "is not known here" in answer.json()["why"]


@pytest.mark.timeout(180)
async def test_a_stalled_reader_costs_no_memory(
    provider: Served,
) -> None:
    size = 64 * MEGABYTE
    job = shell_job(f"head -c {size} /dev/zero | tr '\\0' x", replicas=1)
    await provider.call("", job)
    process = psutil.Process()  # which serves the provider and reads
    async with reading(provider, job):  # and never a `recv`
        before = process.memory_info().rss
        count = 0
        async with asyncio.timeout(150), reading(provider, job) as socket:
            async for text in socket:
                count += len(json.loads(text).get("stdout", ""))
        assert count == size
        await provider.end_of(job)
        growth = process.memory_info().rss - before
    assert growth < size / 4


def job_folder(drive: Path) -> Path:
    folder = drive / "Jobs" / "a-job"
    folder.mkdir(parents=True)
    return folder


async def all_chunks(folder: Path, selection: Selection) -> list[LogChunk]:
    async def has_ended() -> bool:
        return True

    async with asyncio.timeout(20):
        return [chunk async for chunk in chunks(folder, selection, has_ended)]
