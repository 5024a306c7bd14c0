"""Prints a job's output on standard output and standard error."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from ucloud_orchestrator.models.provider_api import FollowMessage

MAX_LINE = 64 * 1024
"""Characters of an unfinished line that are buffered when lines carry their rank."""


class LogPrinter:
    """Prints messages at once; with `prefixed`, whole lines with their rank.

    Text is UTF-8 in any locale, and keeps the job's control characters.
    """

    def __init__(self, prefixed: bool) -> None:
        self._prefixed = prefixed
        self._unfinished: dict[tuple[int, str], str] = {}
        self._is_inside_line = False

    def print(self, message: FollowMessage) -> None:
        """Print a message; with `prefixed`, buffer its last line if it is unfinished."""
        for stream, text in (("stdout", message.stdout), ("stderr", message.stderr)):
            if not text:
                continue
            if not self._prefixed:
                self._write(stream, text)
                continue
            *lines, rest = (self._unfinished.pop((message.rank, stream), "") + text).split("\n")
            if len(rest) > MAX_LINE:
                lines, rest = [*lines, rest], ""
            self._write(stream, "".join(f"[{message.rank}] {line}\n" for line in lines))
            if rest:
                self._unfinished[message.rank, stream] = rest

    def end_line(self) -> None:
        """Begin a new line on standard output, unless it is at the beginning of one."""
        if self._is_inside_line:
            sys.stdout.write("\n")
            self._is_inside_line = False

    def finish(self) -> None:
        for (rank, stream), text in self._unfinished.items():
            self._write(stream, f"[{rank}] {text}\n")
        self._unfinished.clear()

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
    """Suppress the error that the reader of standard output has closed it, as `head` does."""
    try:
        yield
    except BrokenPipeError:
        # Python's own flush at exit would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
