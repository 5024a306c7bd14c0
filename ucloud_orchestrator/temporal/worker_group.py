"""Temporal workers that run in one process and stop together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from temporalio.worker import Worker


@dataclass
class _Member:
    worker: Worker
    close: Callable[[], Awaitable[None]]
    running: asyncio.Task[None]


class WorkerGroup:
    def __init__(self) -> None:
        self._members: dict[str, _Member] = {}

    def __contains__(self, id_: str) -> bool:
        return id_ in self._members

    def start(self, id_: str, worker: Worker, close: Callable[[], Awaitable[None]]) -> None:
        """Run a worker. `close` is called after its shutdown."""
        self._members[id_] = _Member(worker, close, asyncio.create_task(worker.run()))

    def failures(self) -> dict[str, BaseException | None]:
        """Return the errors of workers that stopped without a shutdown; none starts again."""
        return {
            id_: member.running.exception()
            for id_, member in self._members.items()
            if member.running.done()
        }

    async def shutdown(self) -> None:
        """Shut down all workers at once, so that they share one graceful timeout."""
        await asyncio.gather(*(self._stop(member) for member in self._members.values()))

    async def _stop(self, member: _Member) -> None:
        await member.worker.shutdown()
        await asyncio.wait([member.running])
        await member.close()
