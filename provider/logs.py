"""A job's standard output and error as a stream: what was written so far, then what comes, in pieces."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from models.protocol import FollowMessage

PIECE = 64 * 1024
"""Bytes that are read at a time: the reader's pace is the sender's, and memory does not grow with the output."""
LOOK_INTERVAL = 0.2
"""Seconds between two looks for more."""


class _Tail:
    """One file that may still grow, or not be there yet."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._offset = 0
        # A character may be cut in two by the end of a piece.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(self) -> str:
        try:
            with self._file.open("rb") as opened:
                opened.seek(self._offset)
                piece = opened.read(PIECE)
        except FileNotFoundError:
            return ""
        self._offset += len(piece)
        return self._decoder.decode(piece)


async def stream(
    folder: Path, replicas: int, stream_id: str, has_ended: Callable[[], Awaitable[bool]]
) -> AsyncIterator[FollowMessage]:
    """The output of all ranks in `folder`, until the job has ended and all of it was given."""
    tails = {
        (rank, name): _Tail(folder / f"{name}-{rank}.txt") for rank in range(replicas) for name in ("stdout", "stderr")
    }
    while True:
        ended = await has_ended()
        found = False
        for (rank, name), tail in tails.items():
            while text := await asyncio.to_thread(tail.read):
                found = True
                yield FollowMessage.model_validate({"stream_id": stream_id, "rank": rank, name: text})
        if ended and not found:
            return
        if not found:
            await asyncio.sleep(LOOK_INTERVAL)
