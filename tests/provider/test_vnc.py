"""Desktops: VNC between a client and a server inside a job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.provider.provider_process import Served
from tests.provider.web_jobs import free_port, open_session, python_job, serving_web_jobs, start
from tests.waiting import eventually
from ucloud_orchestrator.models.session import SessionType
from ucloud_orchestrator.provider.auth.session_tokens import Session, SessionTokens

ECHO = """
import socketserver, sys
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"RFB 003.008\\n")
        while data := self.request.recv(65536):
            if data == b"bye":
                return
            self.request.sendall(data)
socketserver.ThreadingTCPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
"""
"""A server that greets as VNC does, and then echoes."""


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving_web_jobs(tmp_path) as served:
        yield served


async def desktop(provider: Served, command: str | None = None) -> dict[str, Any]:
    port = free_port()
    (provider.folder / "drive" / "web_application.py").write_text(ECHO)
    job = python_job(
        command or f"exec $PYTHON web_application.py {port}",
        applicationType="VNC",
        vnc={"port": port, "password": "</script>"},
    )
    await start(provider, job)
    return job


async def wait_until_listening(provider: Served, job: dict[str, Any]) -> None:
    async def responds() -> bool:
        try:
            async with connect_websocket(
                (await open_session(provider, job, "VNC"))["url"]
            ) as socket:
                return await socket.recv() == b"RFB 003.008\n"
        except (InvalidStatus, ConnectionClosed):
            return False

    await eventually(responds, 60)


async def test_bytes_are_forwarded_both_ways(provider: Served) -> None:
    job = await desktop(provider)
    await wait_until_listening(provider, job)
    session = await open_session(provider, job, "VNC")
    assert (session["type"], session["jobId"], session["password"]) == (
        "vnc",
        job["id"],
        "</script>",
    )
    async with connect_websocket(session["url"], subprotocols=["binary"]) as socket:
        assert socket.subprotocol == "binary"
        assert await socket.recv() == b"RFB 003.008\n"
        sent = bytes(range(256)) * 2000
        await socket.send(sent)
        received = b""
        async with asyncio.timeout(30):
            while len(received) < len(sent):
                chunk = await socket.recv()
                assert isinstance(chunk, bytes)
                received += chunk
        assert received == sent
        await socket.send(b"bye")
        with pytest.raises(ConnectionClosed):
            await socket.recv()


async def test_a_desktop_closes_with_its_job(provider: Served) -> None:
    job = await desktop(provider)
    await wait_until_listening(provider, job)
    async with connect_websocket((await open_session(provider, job, "VNC"))["url"]) as socket:
        await socket.recv()
        await provider.call("terminate", job)
        with pytest.raises(ConnectionClosed):
            async with asyncio.timeout(30):
                await socket.recv()
    await provider.end_of(job)


async def test_a_token_opens_its_desktop_once(provider: Served) -> None:
    job = await desktop(provider)
    await wait_until_listening(provider, job)
    session = await open_session(provider, job, "VNC")
    address = session["url"].partition("?")[0]
    page = session["page"].partition("?")[0]
    tokens = SessionTokens(provider.settings.data_dir / "session-secret")

    async def statuses(token: str) -> tuple[int, int]:
        async with httpx.AsyncClient() as client:
            status = (await client.get(page, params={"token": token})).status_code
        try:
            async with connect_websocket(f"{address}?token={token}"):
                return status, 101
        except InvalidStatus as error:
            return status, error.response.status_code

    own = Session(job["id"], 0, SessionType.VNC)
    assert await statuses("") == (401, 401)
    assert await statuses(tokens.issue(own, -1)) == (401, 401)
    assert await statuses(tokens.issue(Session(job["id"], 0, SessionType.SHELL))) == (403, 403)
    assert await statuses(tokens.issue(Session("another", 0, SessionType.VNC))) == (409, 409)
    assert await statuses(tokens.issue(Session(job["id"], 1, SessionType.VNC))) == (409, 409)
    token = session["url"].partition("token=")[2]
    assert await statuses(token) == (200, 101)
    assert await statuses(token) == (401, 401)


async def test_a_desktop_that_does_not_listen_is_reported(provider: Served) -> None:
    job = await desktop(provider, "exec sleep 300")
    session = await open_session(provider, job, "VNC")
    # With a network of its own a closed port shows only after the forwarder has connected.
    with pytest.raises((InvalidStatus, ConnectionClosed)):
        async with connect_websocket(session["url"]) as socket:
            await socket.recv()


async def test_pages_are_complete_and_self_contained(provider: Served) -> None:
    job = await desktop(provider)
    shell, vnc = (
        await open_session(provider, job, "SHELL"),
        await open_session(provider, job, "VNC"),
    )
    async with httpx.AsyncClient() as client:
        for session in (shell, vnc):
            answer = await client.get(session["page"])
            assert answer.status_code == 200
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            assert (answer.headers["cache-control"], answer.headers["referrer-policy"]) == (
                "no-store",
                "no-referrer",
            )
            for name in (
                "static/session.css",
                "static/session.mjs",
                "static/third_party/novnc/rfb.mjs",
            ):
                file = await client.get(session["page"].rpartition("/")[0] + "/" + name)
                assert file.status_code == 200
                assert file.headers["content-type"].startswith(("text/css", "text/javascript"))
        # The password is escaped.
        assert '{"password": "\\u003c/script>"}' in (await client.get(vnc["page"])).text
        address = vnc["page"].rpartition("/")[0]
        assert (await client.get(f"{address}/static/../pages.py")).status_code in {401, 404}
        assert (await client.get(f"{address}/static/%2e%2e/pages.py")).status_code == 404
