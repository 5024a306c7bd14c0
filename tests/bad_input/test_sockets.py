"""The WebSockets of logs, terminals and `follow`: no message harms the provider."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.bad_input.payloads import almost, attempts, json_values
from tests.builders import shell_job
from tests.provider.provider_process import Served
from tests.waiting import eventually

pytestmark = pytest.mark.long

LOGS = {
    "type": "init",
    "positions": {"0.stdout": 0},
    "rank": 0,
    "stream": "stdout",
    "follow": False,
}
SHELL = {"type": "input", "cols": 80, "rows": 24, "data": " ", "window": 1, "count": 1}
BAD_MESSAGES: dict[str, str | bytes] = {
    "binary": b"\x00\xff",
    "not JSON": "{",
    "nothing": "",
    "nested": "[" * 100_000,
    "digits": '{"positions": {"0.stdout": ' + "9" * 100_000 + "}}",
    "a position beyond all files": json.dumps(LOGS | {"positions": {"0.stdout": 10**400}}),
    "a wrong field of four bytes a character": json.dumps({"positions": {"\U0001f600" * 200: -1}}),
    "half a character": '{"type": "\\ud800"}',
    "a list": "[]",
    "an unknown stream": '{"stream": "stdin"}',
}


@pytest.fixture(scope="module")
async def job(served: Served) -> AsyncIterator[dict[str, Any]]:
    running = shell_job("echo out; sleep 600")
    assert (await served.call("", running)).status_code == 200
    await eventually(lambda: served.still_runs(running))
    yield running
    await served.call("terminate", running)
    await served.end_of(running)


@pytest.fixture(autouse=True)
def no_traceback(caplog: pytest.LogCaptureFixture) -> Any:
    """Fail if a message leaves a traceback in the provider's log."""
    yield
    assert [record for record in caplog.get_records("call") if record.exc_info] == []


async def address(served: Served, job: dict[str, Any], kind: str) -> str:
    answer = await served.call("interactiveSession", {"job": job, "rank": 0, "sessionType": kind})
    url: str = answer.json()["responses"][0]["url"]
    return url


async def exchange(
    url: str, messages: list[str | bytes], headers: dict[str, str] | None = None
) -> ConnectionClosed | None:
    """Send all messages, and read until the socket closes (returned) or is silent for 0.3 s."""
    async with connect(url, additional_headers=headers, compression=None) as socket:
        try:
            for message in messages:
                await socket.send(message)
            async with asyncio.timeout(0.3):
                while True:
                    await socket.recv()
        except ConnectionClosed as closed:
            return closed
        except TimeoutError:
            return None


@pytest.mark.parametrize("kind", BAD_MESSAGES)
async def test_a_bad_first_message_closes_a_log_stream_with_a_reason(
    served: Served, job: dict[str, Any], kind: str
) -> None:
    closed = await exchange(await address(served, job, "LOGS"), [BAD_MESSAGES[kind]])
    if kind.startswith("a position"):
        assert closed is not None
        assert closed.rcvd is not None
        assert closed.rcvd.code == 1000  # the file is smaller: it is read from its start
        return
    assert closed is not None
    assert closed.rcvd is not None
    assert (closed.rcvd.code, bool(closed.rcvd.reason)) == (1003, True)


@pytest.mark.parametrize("kind", ["binary", "not JSON", "nothing", "nested", "half a character"])
async def test_a_bad_first_message_closes_follow_with_a_reason(
    served: Served, job: dict[str, Any], kind: str
) -> None:
    url = f"{served.url.replace('http', 'ws')}/ucloud/local/jobs/follow"
    closed = await exchange(
        url, [BAD_MESSAGES[kind]], {"Authorization": f"Bearer {served.token()}"}
    )
    assert closed is not None
    assert closed.rcvd is not None
    assert (closed.rcvd.code, bool(closed.rcvd.reason)) == (1003, True)


async def test_bad_messages_do_not_end_a_terminal(served: Served, job: dict[str, Any]) -> None:
    async with connect(await address(served, job, "SHELL"), compression=None) as socket:
        for message in BAD_MESSAGES.values():
            await socket.send(message)
        await socket.send(json.dumps({"type": "initialize", "cols": 80, "rows": 24}))
        for message in BAD_MESSAGES.values():
            await socket.send(message)
        await socket.send(json.dumps({"type": "input", "data": "echo still-$((40+2))\n"}))
        output = ""
        async with asyncio.timeout(20):
            while "still-42" not in output:
                output += json.loads(await socket.recv()).get("data", "")


async def test_no_messages_harm_the_provider(served: Served, job: dict[str, Any]) -> None:
    async def check(messages: tuple[str, list[Any]]) -> None:
        kind, documents = messages
        sent: list[str | bytes] = [json.dumps(document) for document in documents]
        await exchange(await address(served, job, kind), sent)
        assert await served.still_runs(job)

    logs = st.tuples(st.just("LOGS"), st.lists(almost(LOGS) | json_values, min_size=1, max_size=3))
    shells = st.tuples(
        st.just("SHELL"), st.lists(almost(SHELL) | json_values, min_size=1, max_size=3)
    )
    await attempts(logs | shells, check, 12)
