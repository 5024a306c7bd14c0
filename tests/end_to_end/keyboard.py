"""Run a program on a real pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from types import TracebackType


class Keyboard:
    """A program on a terminal of that size."""

    def __init__(self, command: Sequence[str], columns: int, rows: int) -> None:
        self._master, slave = pty.openpty()
        self.text = ""
        self.resize(columns, rows)
        self._process = subprocess.Popen(
            ["/usr/bin/setsid", "--ctty", "--wait", *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)

    def __enter__(self) -> Keyboard:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, text: str, seconds: float = 40.0) -> None:
        """Wait until the terminal has shown the text."""
        end = time.monotonic() + seconds
        while text not in self.text:
            readable, _, _ = select.select([self._master], [], [], max(0.0, end - time.monotonic()))
            assert readable, f"{text!r} was not shown, but {self.text!r}"
            self.text += os.read(self._master, 4096).decode(errors="replace")

    def wait(self, seconds: float = 40.0) -> int:
        """Wait for the program's exit code."""
        return self._process.wait(seconds)
