"""A job's output on standard output and standard error of this process."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from ucloud_orchestrator.models.provider_api import FollowMessage

LONGEST_LINE = 64 * 1024
"""Characters of a line that are held back until it ends, when lines carry their rank."""


class LogPrinter:
    """Prints messages as they come; with `prefixed`, whole lines with the rank before them.

    Text is written as UTF-8 whatever the locale is, with all control characters that the job wrote.
    """

    def __init__(self, prefixed: bool) -> None:
        self._prefixed = prefixed
        self._held: dict[tuple[int, str], str] = {}
        self._is_inside_line = False

    def print(self, message: FollowMessage) -> None:
        """Print a message, or hold back the line that it does not end."""
        for stream, text in (("stdout", message.stdout), ("stderr", message.stderr)):
            if not text:
                continue
            if not self._prefixed:
                self._write(stream, text)
                continue
            *lines, rest = (self._held.pop((message.rank, stream), "") + text).split("\n")
            if len(rest) > LONGEST_LINE:
                lines, rest = [*lines, rest], ""
            self._write(stream, "".join(f"[{message.rank}] {line}\n" for line in lines))
            if rest:
                self._held[message.rank, stream] = rest

    def end_line(self) -> None:
        """Begin a new line, so that something else can be printed on standard output."""
        if self._is_inside_line:
            sys.stdout.write("\n")
            self._is_inside_line = False

    def finish(self) -> None:
        """Print what is held back."""
        for (rank, stream), text in self._held.items():
            self._write(stream, f"[{rank}] {text}\n")
        self._held.clear()

    def _write(self, stream: str, text: str) -> None:
        if not text:
            return
        out = sys.stdout if stream == "stdout" else sys.stderr
        out.flush()
        out.buffer.write(text.encode("utf-8", "replace"))
        out.buffer.flush()
        self._is_inside_line = not text.endswith("\n")


@contextlib.contextmanager
def ignore_broken_pipe() -> Iterator[None]:
    """End quietly when who reads our standard output has seen enough, as `head` has."""
    try:
        yield
    except BrokenPipeError:
        # What Python still wants to flush goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
