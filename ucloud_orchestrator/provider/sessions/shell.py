"""Terminals over WebSockets.

The client sends JSON texts, first `{"type": "initialize", "cols": 80, "rows": 24}`, then `{"type":
"input", "data": ...}` and `{"type": "resize", "cols": ..., "rows": ...}`. It gets `{"type": "data",
"data": ...}` and, when the shell ends, `{"type": "exit", "code": ...}`. All but the last are the
messages of UCloud's `Shells` API.

A browser takes all that a WebSocket brings, faster than it can draw. So a client may say in
`initialize` how many messages of data it wants ahead (`"window": 64`), and then that it has dealt
with some: `{"type": "ack", "count": 1}`.
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
from ucloud_orchestrator.provider.sessions.websocket import received_text

INITIALIZE_TIMEOUT = 10.0
"""Seconds that a client may take to say how large its terminal is."""
MAXIMUM_INPUT = 1024 * 1024
"""Characters of one message; a paste of a megabyte is still taken."""
MAXIMUM_WAITING = 64
"""Inputs that wait for a program that reads none; what comes then is lost, as on any terminal."""


class ShellRequest(ApiModel):
    """What a client sends."""

    type: Literal["initialize", "input", "resize", "ack"]
    cols: int = Field(default=80, ge=1, le=1000)
    rows: int = Field(default=24, ge=1, le=1000)
    data: str = Field(default="", max_length=MAXIMUM_INPUT)
    window: int | None = Field(default=None, ge=1)
    count: int = Field(default=1, ge=1)


class Window:
    """How many messages may be under way before the client has dealt with earlier ones; None: any
    number.
    """

    def __init__(self, size: int | None) -> None:
        self._free = size
        self._changed = asyncio.Event()

    async def take(self) -> None:
        """Wait until one more may be sent."""
        if self._free is None:
            return
        while self._free <= 0:
            self._changed.clear()
            await self._changed.wait()
        self._free -= 1

    def give_back(self, count: int) -> None:
        """The client has dealt with so many."""
        if self._free is not None:
            self._free += count
            self._changed.set()


async def serve_shell(socket: WebSocket, way_in: ExecTarget) -> None:
    """Run a shell in a replica until it, the client or the replica ends. Raises `ExecError`."""
    async with asyncio.timeout(INITIALIZE_TIMEOUT):
        first = await _request(socket)
    terminal = Terminal(way_in, first.cols, first.rows)
    window = Window(first.window)
    typed: asyncio.Queue[str] = asyncio.Queue(MAXIMUM_WAITING)
    tasks = [
        asyncio.create_task(_say(socket, terminal, window)),
        asyncio.create_task(_listen(socket, terminal, window, typed)),
        asyncio.create_task(_type(terminal, typed)),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.shield(terminal.close())


async def _say(socket: WebSocket, terminal: Terminal, window: Window) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while piece := await terminal.read():
        if text := decoder.decode(piece):
            await window.take()
            await socket.send_json({"type": "data", "data": text})
    await socket.send_json({"type": "exit", "code": await terminal.exit_code()})


async def _listen(
    socket: WebSocket, terminal: Terminal, window: Window, typed: asyncio.Queue[str]
) -> None:
    """Take what the client sends, never waiting for the program: what it acknowledges may be what
    that waits for.
    """
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            request = await _request(socket)
            if request.type == "input":
                with contextlib.suppress(asyncio.QueueFull):
                    typed.put_nowait(request.data)
            elif request.type == "ack":
                window.give_back(request.count)
            else:
                terminal.resize(request.cols, request.rows)


async def _type(terminal: Terminal, typed: asyncio.Queue[str]) -> None:
    while True:
        await terminal.write((await typed.get()).encode())


async def _request(socket: WebSocket) -> ShellRequest:
    """The next message that can be read; others are passed over."""
    while True:
        with contextlib.suppress(ValidationError):
            return ShellRequest.model_validate_json(await received_text(socket))
