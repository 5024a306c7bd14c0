"""An asyncio pseudo-terminal with backpressure."""

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
SESSION_VARIABLE = "UCLOUD_SHELL"
"""The environment variable that identifies the processes of a terminal, also detached ones."""
STOP_TIMEOUT = 2.0
"""Seconds between SIGHUP and SIGKILL for the processes of a closed terminal."""
MAXIMUM_SIDE = 1000
"""Columns or rows."""


class Terminal:
    def __init__(self, target: ExecTarget, columns: int, rows: int) -> None:
        """Start the shell. Raises `ExecError`."""
        self._wrapper = target.wrapper
        self._mark = uuid.uuid4().hex
        shell = ["/bin/sh", "-c", "command -v bash >/dev/null && exec bash -i || exec sh -i"]
        command = target.arguments(shell, {SESSION_VARIABLE: self._mark, "TERM": "xterm-256color"})
        self._master, slave = pty.openpty()
        try:
            os.set_blocking(self._master, False)
            self.resize(columns, rows)
            # A new session: the terminal must be free to become the shell's controlling terminal.
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
        """Return output of the programs; empty when the last one has ended."""
        while True:
            try:
                return os.read(self._master, CHUNK_SIZE)
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await self._wait(loop.add_reader, loop.remove_reader)
            except OSError:  # the last program has closed the terminal
                return b""

    async def write(self, data: bytes) -> None:
        """Write input; waits while no program reads."""
        while data:
            try:
                data = data[os.write(self._master, data) :]
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await self._wait(loop.add_writer, loop.remove_writer)
            except OSError:
                return

    def resize(self, columns: int, rows: int) -> None:
        """Set the size; programs get SIGWINCH."""
        sides = [min(max(1, side), MAXIMUM_SIDE) for side in (rows, columns)]
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", *sides, 0, 0))

    async def close(self) -> int:
        """Hang up, kill every process of the terminal, and return the shell's exit code."""
        marked = await asyncio.to_thread(self._marked)
        os.close(self._master)  # the kernel sends SIGHUP to the foreground
        _, alive = await asyncio.to_thread(psutil.wait_procs, marked, STOP_TIMEOUT)
        for process in [*alive, *await asyncio.to_thread(self._marked)]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        return await asyncio.to_thread(self._process.wait)

    async def exit_code(self) -> int:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        pidfd = os.pidfd_open(self._process.pid)
        loop.add_reader(pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
        return self._process.wait()

    def _marked(self) -> list[psutil.Process]:
        """Return the terminal's processes, also those that the sandbox's process 1 has adopted."""
        found = []
        for root in filter(None, (self._process.pid, self._wrapper)):
            with contextlib.suppress(psutil.Error):
                for process in psutil.Process(root).children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        if process.environ().get(SESSION_VARIABLE) == self._mark:
                            found.append(process)
        return found

    async def _wait(self, add: Callable[..., object], remove: Callable[[int], object]) -> None:
        ready = asyncio.Event()
        add(self._master, ready.set)
        try:
            await ready.wait()
        finally:
            remove(self._master)
