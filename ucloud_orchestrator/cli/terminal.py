"""The terminal of this process, connected to a terminal in a job."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from client import OrchestratorError

CHUNK_SIZE = 16 * 1024
"""Bytes of the keyboard, or of what is piped in, that are sent at a time."""


async def attach(url: str) -> int:
    """Be the screen and the keyboard of the job's terminal until its shell ends; returns the
    shell's exit code.

    Raises `OrchestratorError` if the provider does not let us in, or the connection breaks.
    """
    try:
        async with connect(url, max_size=None) as socket:
            columns, rows = _size()
            await socket.send(json.dumps({"type": "initialize", "cols": columns, "rows": rows}))
            with _raw_keyboard():
                typing = asyncio.create_task(_type(socket))
                try:
                    return await _show(socket)
                finally:
                    typing.cancel()
                    await asyncio.gather(typing, return_exceptions=True)
    except (InvalidHandshake, OSError) as error:
        raise OrchestratorError(f"The provider did not open the terminal: {error}") from error
    except ConnectionClosed as error:
        raise OrchestratorError(
            "The connection to the terminal broke; the job may have ended."
        ) from error


async def _show(socket: ClientConnection) -> int:
    while True:
        message = json.loads(await socket.recv())
        if message["type"] == "exit":
            return int(message["code"])
        if message["type"] == "data":
            sys.stdout.write(message["data"])
            sys.stdout.flush()


async def _type(socket: ClientConnection) -> None:
    loop = asyncio.get_running_loop()
    sizes: set[asyncio.Task[None]] = set()

    def resize() -> None:
        columns, rows = _size()
        task = asyncio.ensure_future(
            socket.send(json.dumps({"type": "resize", "cols": columns, "rows": rows}))
        )
        sizes.add(task)
        task.add_done_callback(sizes.discard)

    loop.add_signal_handler(signal.SIGWINCH, resize)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    keyboard = sys.stdin.fileno()
    try:
        while data := await _read(keyboard):
            await socket.send(json.dumps({"type": "input", "data": decoder.decode(data)}))
        await socket.send(
            json.dumps({"type": "input", "data": "\x04"})
        )  # what was piped in has ended
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


def _size() -> tuple[int, int]:
    """Columns and rows of the terminal now, whatever the environment says of it."""
    try:
        return os.get_terminal_size(sys.stdin.fileno())
    except OSError:
        return 80, 24


async def _read(keyboard: int) -> bytes:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(keyboard, ready.set)
    except OSError:  # a file is always ready, and cannot be watched
        return os.read(keyboard, CHUNK_SIZE)
    try:
        await ready.wait()
        return os.read(keyboard, CHUNK_SIZE)
    finally:
        loop.remove_reader(keyboard)


@contextlib.contextmanager
def _raw_keyboard() -> Iterator[None]:
    """Every key goes to the job, Ctrl-C too."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setraw(
        sys.stdin, termios.TCSADRAIN
    )  # what was typed before the connection stood is not lost
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
