"""A job's standard output and error as a stream: what was written so far, then what comes, in
pieces.

Text is UTF-8. Each byte that is not becomes U+FFFD; every other character, NUL and carriage return
too, is passed on as it is, and nothing waits for the end of a line.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import io
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ucloud_orchestrator.models.provider_api import FollowMessage, LogStream

CHUNK_SIZE = 64 * 1024
"""Bytes that are read at a time: the reader's pace is the sender's, and memory does not grow with
the output.
"""
POLL_INTERVAL = 0.2
"""Seconds between two looks for more."""


@dataclass(frozen=True)
class Selection:
    """What of a job's output is wanted."""

    ranks: Sequence[int]
    streams: Sequence[LogStream] = tuple(LogStream)
    positions: Mapping[str, int] = field(default_factory=dict)
    """Where to begin, in bytes, by `<rank>.<stream>`; 0 for all others."""
    follows: bool = True
    """Whether to wait for more until the job has ended."""


@dataclass(frozen=True)
class Piece:
    """Some text of one rank's stream, and how many of its bytes there are up to the end of this
    text.
    """

    rank: int
    stream: LogStream
    text: str
    position: int


async def pieces(
    folder: Path, selection: Selection, has_ended: Callable[[], Awaitable[bool]]
) -> AsyncIterator[Piece]:
    """The selected output in `folder`, until the job has ended and all of it was given.

    Each file that has more gives one piece in turn, so that none holds up the others. Nothing is
    read ahead.
    """
    tails = [
        _Tail(rank, stream, selection.positions.get(f"{rank}.{stream}", 0))
        for rank in selection.ranks
        for stream in selection.streams
    ]
    is_last = not selection.follows
    while True:
        progress = False
        for tail in await asyncio.to_thread(_with_more, folder, tails, is_last):
            before = tail.offset
            piece = await asyncio.to_thread(_next_piece, folder, tail)
            progress = progress or tail.offset != before
            if piece is not None:
                yield piece
        if progress:
            continue
        if is_last:
            break
        # What was written before the end is seen by the look after it.
        is_last = await has_ended()
        if not is_last:
            await asyncio.sleep(POLL_INTERVAL)
    for tail in tails:
        if (piece := tail.rest()) is not None:
            yield piece


async def stream(
    folder: Path, replicas: int, stream_id: str, has_ended: Callable[[], Awaitable[bool]]
) -> AsyncIterator[FollowMessage]:
    """The output of all ranks in `folder`, until the job has ended and all of it was given."""
    async for piece in pieces(folder, Selection(range(replicas)), has_ended):
        yield message(piece, stream_id)


def message(piece: Piece, stream_id: str) -> FollowMessage:
    """The piece as UCloud's `follow` sends it."""
    return FollowMessage.model_validate(
        {"stream_id": stream_id, "rank": piece.rank, str(piece.stream): piece.text}
    )


class _Tail:
    """One file that may still grow, or not be there yet."""

    def __init__(self, rank: int, stream: LogStream, position: int) -> None:
        self._rank = rank
        self._stream = stream
        self._limit: int | None = None
        # A character may be cut in two by the end of a piece.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.name = f"{stream}-{rank}.txt"
        self.offset = position

    def has_more(self, size: int, is_last: bool) -> bool:
        """Whether there is more to read now that the file has that size; from a last look on it
        does not grow.
        """
        if self._limit is None and is_last:
            self._limit = size
        if size < self.offset:  # the job was started again from its beginning
            self.offset = 0
            self._decoder.reset()
        return self.offset < (size if self._limit is None else min(size, self._limit))

    def read(self, file: io.FileIO) -> Piece | None:
        """The next piece; None if there is no whole character in it."""
        file.seek(self.offset)
        data = file.read(
            CHUNK_SIZE if self._limit is None else min(CHUNK_SIZE, self._limit - self.offset)
        )
        self.offset += len(data)
        return self._piece(self._decoder.decode(data))

    def rest(self) -> Piece | None:
        """What the file ends with that is no whole character."""
        return self._piece(self._decoder.decode(b"", final=True))

    def _piece(self, text: str) -> Piece | None:
        held = len(self._decoder.getstate()[0])
        return Piece(self._rank, self._stream, text, self.offset - held) if text else None


def _with_more(folder: Path, tails: Sequence[_Tail], is_last: bool) -> list[_Tail]:
    try:
        with _opened(folder) as directory:
            sizes = [_size(directory, tail.name) for tail in tails]
    except OSError:  # it is not there yet, or not what it should be
        sizes = [0] * len(tails)
    return [tail for tail, size in zip(tails, sizes, strict=True) if tail.has_more(size, is_last)]


def _next_piece(folder: Path, tail: _Tail) -> Piece | None:
    """None also if the file cannot be read."""
    try:
        with _opened(folder) as directory:
            # Jobs may have put something else in its place: a link is not followed, a pipe not
            # waited for.
            number = os.open(
                tail.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory
            )
        with io.FileIO(number) as file:
            return tail.read(file) if stat.S_ISREG(os.fstat(number).st_mode) else None
    except OSError:
        return None


def _size(directory: int, name: str) -> int:
    """The size of a plain file in bytes; 0 if there is none."""
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """The folder `<drive>/Jobs/<job id>`.

    Raises `OSError` also where a job has put a link in the place of a folder.
    """
    number = os.open(folder.parent.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in (folder.parent.name, folder.name):
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=number)
            os.close(number)
            number = inner
        yield number
    finally:
        os.close(number)
