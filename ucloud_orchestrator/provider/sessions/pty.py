"""A pseudo-terminal with a program on it, for asyncio: it is read no faster than somebody takes
what it says.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import termios
import uuid
from collections.abc import Callable

import psutil

from ucloud_orchestrator.provider.sandbox.exec import ExecTarget

CHUNK_SIZE = 16 * 1024
"""Bytes that are read at a time."""
SESSION_VARIABLE = "UCLOUD_SHELL"
"""The environment variable by which the processes of a terminal are found, however far they have
gone.
"""
STOP_TIMEOUT = 2.0
"""Seconds between SIGHUP and SIGKILL for what is left on a closed terminal."""
MAXIMUM_SIDE = 1000
"""Columns or rows."""


class Terminal:
    """A shell in a replica, on a terminal of its own."""

    def __init__(self, way_in: ExecTarget, columns: int, rows: int) -> None:
        """Start it. Raises `ExecError`."""
        self._wrapper = way_in.wrapper
        self._mark = uuid.uuid4().hex
        shell = ["/bin/sh", "-c", "command -v bash >/dev/null && exec bash -i || exec sh -i"]
        command = way_in.arguments(shell, {SESSION_VARIABLE: self._mark, "TERM": "xterm-256color"})
        self._master, slave = pty.openpty()
        try:
            os.set_blocking(self._master, False)
            self.resize(columns, rows)
            # A session of its own, so that the terminal is free to become that of the shell's.
            self._process = subprocess.Popen(
                command,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                start_new_session=True,
                close_fds=True,
            )
        except OSError:
            os.close(self._master)
            raise
        finally:
            os.close(slave)

    async def read(self) -> bytes:
        """What the programs wrote; empty when the shell has ended."""
        while True:
            try:
                return os.read(self._master, CHUNK_SIZE)
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await self._wait(loop.add_reader, loop.remove_reader)
            except OSError:  # the last program has closed the terminal
                return b""

    async def write(self, data: bytes) -> None:
        """Type something; waits while no program reads."""
        while data:
            try:
                data = data[os.write(self._master, data) :]
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await self._wait(loop.add_writer, loop.remove_writer)
            except OSError:
                return

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size; programs hear of it."""
        sides = [min(max(1, side), MAXIMUM_SIDE) for side in (rows, columns)]
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", *sides, 0, 0))

    async def close(self) -> int:
        """Hang up, and end every process that was started on it; returns the shell's exit code."""
        marked = await asyncio.to_thread(self._marked)
        os.close(self._master)  # the kernel tells those in the foreground
        _, alive = await asyncio.to_thread(psutil.wait_procs, marked, STOP_TIMEOUT)
        for process in [*alive, *await asyncio.to_thread(self._marked)]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        return await asyncio.to_thread(self._process.wait)

    async def exit_code(self) -> int:
        """The shell's exit code, once it has ended."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        watched = os.pidfd_open(self._process.pid)
        loop.add_reader(watched, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(watched)
            os.close(watched)
        return self._process.wait()

    def _marked(self) -> list[psutil.Process]:
        """All that was started on the terminal: below the shell, or left to the sandbox's first
        process.
        """
        found = []
        for root in filter(None, (self._process.pid, self._wrapper)):
            with contextlib.suppress(psutil.Error):
                for process in psutil.Process(root).children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        if process.environ().get(SESSION_VARIABLE) == self._mark:
                            found.append(process)
        return found

    async def _wait(self, watch: Callable[..., object], forget: Callable[[int], object]) -> None:
        ready = asyncio.Event()
        watch(self._master, ready.set)
        try:
            await ready.wait()
        finally:
            forget(self._master)
