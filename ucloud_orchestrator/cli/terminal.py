"""Attaches this process's terminal to a terminal in a job."""

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
"""Bytes of standard input that are sent at a time."""


async def attach(url: str) -> int:
    """Attach to the terminal until its shell ends; return the shell's exit code.

    Raises `OrchestratorError` if the provider rejects the connection, or if it breaks.
    """
    try:
        async with connect(url, max_size=None) as socket:
            columns, rows = _size()
            await socket.send(json.dumps({"type": "initialize", "cols": columns, "rows": rows}))
            with _raw_keyboard():
                sending = asyncio.create_task(_send_input(socket))
                try:
                    return await _print_output(socket)
                finally:
                    sending.cancel()
                    await asyncio.gather(sending, return_exceptions=True)
    except (InvalidHandshake, OSError) as error:
        raise OrchestratorError(f"The provider did not open the terminal: {error}") from error
    except ConnectionClosed as error:
        raise OrchestratorError(
            "The connection to the terminal broke; the job may have ended."
        ) from error


async def _print_output(socket: ClientConnection) -> int:
    while True:
        message = json.loads(await socket.recv())
        if message["type"] == "exit":
            return int(message["code"])
        if message["type"] == "data":
            sys.stdout.write(message["data"])
            sys.stdout.flush()


async def _send_input(socket: ClientConnection) -> None:
    loop = asyncio.get_running_loop()
    resizes: set[asyncio.Task[None]] = set()

    def resize() -> None:
        columns, rows = _size()
        task = asyncio.ensure_future(
            socket.send(json.dumps({"type": "resize", "cols": columns, "rows": rows}))
        )
        resizes.add(task)
        task.add_done_callback(resizes.discard)

    loop.add_signal_handler(signal.SIGWINCH, resize)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    keyboard = sys.stdin.fileno()
    try:
        while data := await _read(keyboard):
            await socket.send(json.dumps({"type": "input", "data": decoder.decode(data)}))
        # End of a piped input: Ctrl-D.
        await socket.send(json.dumps({"type": "input", "data": "\x04"}))
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


def _size() -> tuple[int, int]:
    """Return columns and rows of the terminal; COLUMNS and LINES are ignored."""
    try:
        return os.get_terminal_size(sys.stdin.fileno())
    except OSError:
        return 80, 24


async def _read(keyboard: int) -> bytes:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(keyboard, ready.set)
    except OSError:  # a file is always ready, and epoll rejects it
        return os.read(keyboard, CHUNK_SIZE)
    try:
        await ready.wait()
        return os.read(keyboard, CHUNK_SIZE)
    finally:
        loop.remove_reader(keyboard)


@contextlib.contextmanager
def _raw_keyboard() -> Iterator[None]:
    """Send every key to the job, also Ctrl-C."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    # TCSADRAIN keeps what was typed before the connection was made.
    tty.setraw(sys.stdin, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
