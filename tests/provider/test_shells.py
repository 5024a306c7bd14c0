"""Terminals in jobs: real pseudo-terminals inside real sandboxes, and their tokens."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.builders import shell_job
from tests.provider.provider_process import Served
from tests.waiting import eventually
from ucloud_orchestrator.models.session import SessionType
from ucloud_orchestrator.provider.auth.session_tokens import Session, SessionTokens


async def running(provider: Served, script: str = "sleep 300", **changes: Any) -> dict[str, Any]:
    job = shell_job(script, **changes)
    await provider.call("", job)
    await eventually(lambda: len(provider.processes_of(job)) > 1)

    async def can_be_opened() -> bool:
        item = {"job": job, "rank": 0, "sessionType": "SHELL"}
        return (await provider.call("interactiveSession", item)).status_code == 200

    await eventually(can_be_opened)
    return job


async def open_shell(provider: Served, job: dict[str, Any], rank: int = 0) -> dict[str, Any]:
    answer = await provider.call(
        "interactiveSession", {"job": job, "rank": rank, "sessionType": "SHELL"}
    )
    assert answer.status_code == 200, answer.text
    (session,) = answer.json()["responses"]
    assert (session["type"], session["jobId"], session["rank"]) == ("shell", job["id"], rank)
    return dict(session)


class Screen:
    """The input and output of a terminal."""

    def __init__(self, socket: ClientConnection, acknowledges: bool = False) -> None:
        self._socket = socket
        self._acknowledges = acknowledges
        self.text = ""
        self.code: int | None = None

    async def type(self, text: str) -> None:
        await self._socket.send(json.dumps({"type": "input", "data": text}))

    async def resize(self, columns: int, rows: int) -> None:
        await self._socket.send(json.dumps({"type": "resize", "cols": columns, "rows": rows}))

    async def read_until(self, text: str) -> None:
        try:
            async with asyncio.timeout(30):
                while text not in self.text:
                    await self._read()
        except TimeoutError:
            pytest.fail(f"{text!r} did not come, but {self.text!r} did.")

    async def read_to_the_end(self) -> None:
        async with asyncio.timeout(30):
            while self.code is None:
                await self._read()

    async def _read(self) -> None:
        message = json.loads(await self._socket.recv())
        if message["type"] == "exit":
            self.code = message["code"]
        else:
            self.text += message["data"]
            if self._acknowledges:
                await self._socket.send(json.dumps({"type": "ack"}))


@asynccontextmanager
async def terminal(url: str, columns: int = 80, rows: int = 24) -> AsyncIterator[Screen]:
    async with connect_websocket(url) as socket:
        await socket.send(json.dumps({"type": "initialize", "cols": columns, "rows": rows}))
        yield Screen(socket)


def shells_of(job: dict[str, Any]) -> list[psutil.Process]:
    """Return all processes of terminals in the job."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if "UCLOUD_SHELL" in environment and environment.get("UCLOUD_JOB_ID") == job["id"]:
                found.append(process)
        except psutil.Error:
            continue
    return found


async def test_a_command_runs_inside_the_job(provider: Served) -> None:
    job = await running(provider)
    async with terminal((await open_shell(provider, job))["url"]) as screen:
        await screen.type(
            "echo $((6*7)) in $PWD of $UCLOUD_JOB_ID; cat /etc/ucloud/rank.txt; ls /\n"
        )
        await screen.read_until(f"42 in /work of {job['id']}")
        await screen.type("test -e /root || echo no-root''-folder\n")
        await screen.read_until("no-root-folder")
        await screen.type("exit 3\n")
        await screen.read_to_the_end()
        assert screen.code == 3
    await eventually(lambda: not shells_of(job))


async def test_a_terminal_has_no_more_rights_than_the_job(provider: Served) -> None:
    job = await running(provider, "grep -E 'Cap(Prm|Eff)|NoNewPrivs' /proc/self/status; sleep 300")
    await eventually(lambda: "NoNewPrivs" in provider.output(job, "stdout-0.txt"))
    async with terminal((await open_shell(provider, job))["url"]) as screen:
        await screen.type("grep -E 'Cap(Prm|Eff)|NoNewPrivs' /proc/self/status; echo do''ne\n")
        await screen.read_until("done\r\n")
        for line in provider.output(job, "stdout-0.txt").splitlines():
            assert line in screen.text.splitlines()


@pytest.fixture(params=[signal.SIG_DFL, signal.SIG_IGN], ids=["default", "ignored"])
def interrupt(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set the provider's SIGINT disposition; a shell starts background processes that ignore it."""
    before = signal.signal(signal.SIGINT, request.param)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupt")
async def test_control_c_interrupts_only_the_command(provider: Served) -> None:
    job = await running(provider)
    async with terminal((await open_shell(provider, job))["url"]) as screen:
        await screen.type("echo be''fore; sleep 200; echo af''ter $?\n")
        await screen.read_until("before\r\n")
        await eventually(lambda: any(process.name() == "sleep" for process in shells_of(job)))
        screen.text = ""
        await screen.type("\x03")
        await screen.read_until("# ")
        await screen.type("echo still-$((1+1))\n")
        await screen.read_until("still-2")
    assert await provider.still_runs(job)


async def test_the_terminal_has_the_size_of_the_window(provider: Served) -> None:
    job = await running(provider)
    async with terminal((await open_shell(provider, job))["url"], 100, 30) as screen:
        await screen.type("stty size\n")
        await screen.read_until("30 100")
        await screen.resize(132, 43)
        await screen.type("stty size\n")
        await screen.read_until("43 132")


async def test_a_terminal_ends_with_its_client(provider: Served) -> None:
    job = await running(provider)
    async with terminal((await open_shell(provider, job))["url"]) as screen:
        await screen.type(
            "trap '' HUP TERM; nohup sleep 201 >/dev/null 2>&1 & (setsid sleep 202 &) ; echo "
            "rea''dy\n"
        )
        await screen.read_until("ready")
        await eventually(lambda: sum(process.name() == "sleep" for process in shells_of(job)) == 2)
    await eventually(lambda: not shells_of(job))
    assert await provider.still_runs(job)


async def test_a_terminal_ends_with_its_job(provider: Served) -> None:
    job = await running(provider)
    async with terminal((await open_shell(provider, job))["url"]) as screen:
        await screen.type("echo rea''dy\n")
        await screen.read_until("ready")
        await provider.call("terminate", job)
        with contextlib.suppress(ConnectionClosed):
            await screen.read_to_the_end()
    await provider.end_of(job)
    await eventually(lambda: not shells_of(job))


async def test_unread_output_does_not_fill_the_memory(provider: Served) -> None:
    job = await running(provider)
    async with terminal((await open_shell(provider, job))["url"]) as screen:
        await screen.type("yes\n")
        await screen.read_until("y\r\ny\r\n")
        before = psutil.Process().memory_info().rss
        # Once all buffers are full, `yes` blocks and uses no processor time.
        yes = next(process for process in shells_of(job) if process.name() == "yes")
        await eventually(
            lambda: yes.status() == psutil.STATUS_SLEEPING and yes.cpu_percent(0.5) < 5, 60
        )
        assert psutil.Process().memory_info().rss - before < 32 * 1024 * 1024
    await eventually(lambda: not shells_of(job))


async def test_a_token_opens_its_session_once(provider: Served) -> None:
    job = await running(provider)
    session = await open_shell(provider, job)
    tokens = SessionTokens(provider.settings.data_dir / "session-secret")
    address = session["url"].partition("?")[0]

    async def status(token: str) -> int:
        try:
            async with connect_websocket(f"{address}?token={token}"):
                return 101
        except InvalidStatus as error:
            return error.response.status_code

    own = Session(job["id"], 0, SessionType.SHELL)
    assert await status("") == 401
    assert await status("nonsense") == 401
    assert await status(tokens.issue(own, -1)) == 401
    assert await status(SessionTokens(provider.folder / "other-secret").issue(own)) == 401
    assert await status(provider.token()) == 401
    assert await status(tokens.issue(Session(job["id"], 0, SessionType.VNC))) == 403
    assert await status(tokens.issue(Session("another", 0, SessionType.SHELL))) == 409
    assert await status(tokens.issue(Session(job["id"], 1, SessionType.SHELL))) == 409
    assert await status(session["sessionIdentifier"]) == 101
    assert await status(session["sessionIdentifier"]) == 401
    assert (
        await provider.call(
            "interactiveSession", {"job": shell_job("true"), "sessionType": "SHELL"}
        )
    ).status_code == 404


async def test_only_the_provider_can_read_the_token_secret(provider: Served) -> None:
    file = provider.settings.data_dir / "session-secret"
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(file.read_bytes()) == 32


async def test_a_token_with_a_challenge_needs_its_verifier(provider: Served) -> None:
    job = await running(provider)
    challenge = hashlib.sha256(b"a secret").hexdigest()
    item = {"job": job, "sessionType": "SHELL", "challenge": challenge}
    (session,) = (await provider.call("interactiveSession", item)).json()["responses"]
    assert session["needsVerifier"]
    for wrong in ("", "&verifier=guess"):
        with pytest.raises(InvalidStatus) as rejected:
            await connect_websocket(session["url"] + wrong)
        assert rejected.value.response.status_code == 401
    async with terminal(f"{session['url']}&verifier=a+secret") as screen:
        await screen.type("echo let''-in\n")
        await screen.read_until("let-in")


async def test_a_client_gets_no_more_than_its_window(provider: Served) -> None:
    job = await running(provider)
    async with connect_websocket((await open_shell(provider, job))["url"]) as socket:
        await socket.send(json.dumps({"type": "initialize", "cols": 80, "rows": 24, "window": 3}))
        await socket.send(json.dumps({"type": "input", "data": "yes\n"}))
        for _ in range(3):
            await asyncio.wait_for(socket.recv(), 30)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(socket.recv(), 1)
        await socket.send(json.dumps({"type": "ack", "count": 2}))
        for _ in range(2):
            await asyncio.wait_for(socket.recv(), 30)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(socket.recv(), 1)
    await eventually(lambda: not shells_of(job))


async def test_a_large_paste_is_echoed_completely(provider: Served) -> None:
    job = await running(provider)
    pasted = "0123456789" * 60_000
    async with connect_websocket((await open_shell(provider, job))["url"]) as socket:
        await socket.send(json.dumps({"type": "initialize", "cols": 80, "rows": 24, "window": 4}))
        screen = Screen(socket, acknowledges=True)
        await screen.type("stty raw -echo; echo rea''dy; exec cat\n")
        await screen.read_until("ready")
        await screen.type(pasted)
        await screen.type("the end")
        await screen.read_until("the end")
    assert pasted in screen.text
    await eventually(lambda: not shells_of(job))
