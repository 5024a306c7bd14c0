"""What takes time is done for each job in a task of its own, so that no other job waits for it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from typing import TypeVar

from ucloud_orchestrator.provider.files import output_files

log = logging.getLogger(__name__)
Value = TypeVar("Value")


class TaskKind(Enum):
    """What is done for a job."""

    START = "start"
    STOP = "stop"
    END = "end"


MAX_CONCURRENT = {TaskKind.START: 4, TaskKind.STOP: 16, TaskKind.END: 8}
"""For how many jobs it is done at the same time."""
DELETED_AT_ONCE = 2
"""Folders of ended jobs that are deleted at the same time, as slowly as it takes."""


class JobTasks:
    """At most one action for each job.

    What a stop breaks off is done again after the next start.
    """

    def __init__(self) -> None:
        self._slots = {kind: asyncio.Semaphore(number) for kind, number in MAX_CONCURRENT.items()}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        # Threads of their own: of those that all share there are few, and starts need them.
        self._collecting = ThreadPoolExecutor(MAX_CONCURRENT[TaskKind.END], "collect")
        self._deleting = ThreadPoolExecutor(DELETED_AT_ONCE, "delete")

    def is_busy(self, job_id: str) -> bool:
        """Whether something is being done for the job."""
        return job_id in self._tasks

    def begin(
        self,
        job_id: str,
        kind: TaskKind,
        action: Callable[[], Awaitable[None]],
        failed: Callable[[Exception], None],
    ) -> None:
        """Do it, as soon as not too many are being done; `failed` is called with what it raises."""

        async def act() -> None:
            try:
                async with self._slots[kind]:
                    await action()
            except Exception as error:
                failed(error)
            finally:
                del self._tasks[job_id]

        self._tasks[job_id] = asyncio.create_task(act())

    async def collect(self, function: Callable[[], Value]) -> Value:
        """Call a function that may move many files, in a thread."""
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(
            self._collecting, context.run, function
        )

    def delete(self, folder: Path) -> None:
        """Delete a folder, some time from now."""
        self._deleting.submit(contextvars.copy_context().run, _delete, folder)

    async def close(self) -> None:
        """Break off what is being done; only what a thread has begun goes on, as far as it
        comes.
        """
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for pool in (self._collecting, self._deleting):
            pool.shutdown(wait=False, cancel_futures=True)


def _delete(folder: Path) -> None:
    try:
        output_files.delete(folder)
    except OSError as error:
        log.warning("The folder %s could not be deleted: %s", folder, error)
