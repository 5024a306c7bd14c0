"""Terminals over WebSockets, with the messages of UCloud's `Shells` API.

The client sends JSON texts, first `{"type": "initialize", "cols": 80, "rows": 24}`, then `{"type":
"input", "data": ...}` and `{"type": "resize", "cols": ..., "rows": ...}`. It gets `{"type": "data",
"data": ...}` and, when the shell ends, `{"type": "exit", "code": ...}`, which is ours.

A browser reads faster than it can draw, so a client may set a window in `initialize`: the number of
unacknowledged data messages (`"window": 64`). It acknowledges with `{"type": "ack", "count": 1}`.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
from typing import Literal

from fastapi import WebSocket, WebSocketDisconnect
from pydantic import Field, ValidationError

from ucloud_orchestrator.models.base import ApiModel
from ucloud_orchestrator.provider.sandbox.exec import ExecTarget
from ucloud_orchestrator.provider.sessions.pty import Terminal
from ucloud_orchestrator.provider.sessions.race import race
from ucloud_orchestrator.provider.sessions.websocket import received_text

INITIALIZE_TIMEOUT = 10.0
"""Seconds until the client's first message."""
MAXIMUM_INPUT = 1024 * 1024
"""Characters of one message; it allows a paste of a megabyte."""
MAXIMUM_WAITING = 64
"""Queued inputs for a program that does not read; more are lost, as on any terminal."""


class ShellRequest(ApiModel):
    type: Literal["initialize", "input", "resize", "ack"]
    cols: int = Field(default=80, ge=1, le=1000)
    rows: int = Field(default=24, ge=1, le=1000)
    data: str = Field(default="", max_length=MAXIMUM_INPUT)
    window: int | None = Field(default=None, ge=1)
    count: int = Field(default=1, ge=1)


class Window:
    """The number of messages that may be unacknowledged; None: unlimited."""

    def __init__(self, size: int | None) -> None:
        self._free = size
        self._changed = asyncio.Event()

    async def acquire(self) -> None:
        if self._free is None:
            return
        while self._free <= 0:
            self._changed.clear()
            await self._changed.wait()
        self._free -= 1

    def release(self, count: int) -> None:
        if self._free is not None:
            self._free += count
            self._changed.set()


async def serve_shell(socket: WebSocket, target: ExecTarget) -> None:
    """Run a shell in a replica until it, the client or the replica ends. Raises `ExecError`."""
    async with asyncio.timeout(INITIALIZE_TIMEOUT):
        first = await _request(socket)
    terminal = Terminal(target, first.cols, first.rows)
    window = Window(first.window)
    inputs: asyncio.Queue[str] = asyncio.Queue(MAXIMUM_WAITING)
    try:
        await race(
            _send_output(socket, terminal, window),
            _receive_messages(socket, terminal, window, inputs),
            _write_input(terminal, inputs),
        )
    finally:
        await asyncio.shield(terminal.close())


async def _send_output(socket: WebSocket, terminal: Terminal, window: Window) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while chunk := await terminal.read():
        if text := decoder.decode(chunk):
            await window.acquire()
            await socket.send_json({"type": "data", "data": text})
    await socket.send_json({"type": "exit", "code": await terminal.exit_code()})


async def _receive_messages(
    socket: WebSocket, terminal: Terminal, window: Window, inputs: asyncio.Queue[str]
) -> None:
    """Queue input without waiting for the program, which may wait for an acknowledgement."""
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            request = await _request(socket)
            if request.type == "input":
                with contextlib.suppress(asyncio.QueueFull):
                    inputs.put_nowait(request.data)
            elif request.type == "ack":
                window.release(request.count)
            else:
                terminal.resize(request.cols, request.rows)


async def _write_input(terminal: Terminal, inputs: asyncio.Queue[str]) -> None:
    while True:
        await terminal.write((await inputs.get()).encode())


async def _request(socket: WebSocket) -> ShellRequest:
    """Return the next valid message; invalid ones are skipped."""
    while True:
        with contextlib.suppress(ValidationError):
            return ShellRequest.model_validate_json(await received_text(socket))
