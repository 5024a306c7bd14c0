"""Streams of a job's standard output and error: what the files have, then what is appended.

Text is UTF-8; each invalid byte becomes U+FFFD. All other characters, NUL and carriage return too,
are sent as they are, without waiting for the end of a line.
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
from ucloud_orchestrator.provider.sandbox.launcher import open_beneath

CHUNK_SIZE = 64 * 1024
"""Bytes of one read. The next read waits for the reader, so memory does not grow with output."""
POLL_INTERVAL = 0.2
"""Seconds between two polls of the files."""


@dataclass(frozen=True)
class Selection:
    ranks: Sequence[int]
    streams: Sequence[LogStream] = tuple(LogStream)
    positions: Mapping[str, int] = field(default_factory=dict)
    """Where to begin, in bytes, by `<rank>.<stream>`; 0 without an entry."""
    follows: bool = True
    """Whether to wait for more until the job has ended."""


@dataclass(frozen=True)
class LogChunk:
    """Text of one rank's stream, and its end's position in the file, in bytes."""

    rank: int
    stream: LogStream
    text: str
    position: int


async def chunks(
    folder: Path, selection: Selection, has_ended: Callable[[], Awaitable[bool]]
) -> AsyncIterator[LogChunk]:
    """Yield the selected output in `folder` until the job has ended and all of it was yielded.

    The files take turns, one chunk each, so that none delays the others. Nothing is read ahead.
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
            chunk = await asyncio.to_thread(_next_chunk, folder, tail)
            progress = progress or tail.offset != before
            if chunk is not None:
                yield chunk
        if progress:
            continue
        if is_last:
            break
        # One more poll after the end reads what was written before it.
        is_last = await has_ended()
        if not is_last:
            await asyncio.sleep(POLL_INTERVAL)
    for tail in tails:
        if (chunk := tail.rest()) is not None:
            yield chunk


async def stream(
    folder: Path, replicas: int, stream_id: str, has_ended: Callable[[], Awaitable[bool]]
) -> AsyncIterator[FollowMessage]:
    async for chunk in chunks(folder, Selection(range(replicas)), has_ended):
        yield message(chunk, stream_id)


def message(chunk: LogChunk, stream_id: str) -> FollowMessage:
    """Return the chunk as UCloud's `follow` sends it."""
    return FollowMessage.model_validate(
        {"stream_id": stream_id, "rank": chunk.rank, str(chunk.stream): chunk.text}
    )


class _Tail:
    """A file that may still grow, or not exist yet."""

    def __init__(self, rank: int, stream: LogStream, position: int) -> None:
        self._rank = rank
        self._stream = stream
        self._limit: int | None = None
        # A character may be cut in two by the end of a chunk.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.name = f"{stream}-{rank}.txt"
        self.offset = position

    def has_more(self, size: int, is_last: bool) -> bool:
        """Return whether a file of that size has unread bytes. The last poll fixes its size."""
        if self._limit is None and is_last:
            self._limit = size
        if size < self.offset:  # the job was started again from its beginning
            self.offset = 0
            self._decoder.reset()
        return self.offset < (size if self._limit is None else min(size, self._limit))

    def read(self, file: io.FileIO) -> LogChunk | None:
        """Return the next chunk; None if it has no complete character."""
        file.seek(self.offset)
        data = file.read(
            CHUNK_SIZE if self._limit is None else min(CHUNK_SIZE, self._limit - self.offset)
        )
        self.offset += len(data)
        return self._chunk(self._decoder.decode(data))

    def rest(self) -> LogChunk | None:
        return self._chunk(self._decoder.decode(b"", final=True))

    def _chunk(self, text: str) -> LogChunk | None:
        pending = len(self._decoder.getstate()[0])
        return LogChunk(self._rank, self._stream, text, self.offset - pending) if text else None


def _with_more(folder: Path, tails: Sequence[_Tail], is_last: bool) -> list[_Tail]:
    try:
        with _opened(folder) as directory:
            sizes = [_size(directory, tail.name) for tail in tails]
    except OSError:  # missing yet, or a link
        sizes = [0] * len(tails)
    return [tail for tail, size in zip(tails, sizes, strict=True) if tail.has_more(size, is_last)]


def _next_chunk(folder: Path, tail: _Tail) -> LogChunk | None:
    try:
        with _opened(folder) as directory:
            # Jobs may have put a link or a pipe there.
            number = os.open(
                tail.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory
            )
        with io.FileIO(number) as file:
            return tail.read(file) if stat.S_ISREG(os.fstat(number).st_mode) else None
    except OSError:
        return None


def _size(directory: int, name: str) -> int:
    """Return the size of a regular file in bytes; 0 if there is none."""
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Open the folder `<drive>/Jobs/<job id>`. Raises `OSError`."""
    drive, inside = folder.parents[1], f"{folder.parent.name}/{folder.name}"
    number = open_beneath(str(drive), inside, os.O_PATH | os.O_DIRECTORY)
    try:
        yield number
    finally:
        os.close(number)
