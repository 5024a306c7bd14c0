"""Long work for jobs, each in a task of its own, so that no job blocks another."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from ucloud_orchestrator.provider.files import trees
from ucloud_orchestrator.provider.jobs.decisions import Action

log = logging.getLogger(__name__)
Value = TypeVar("Value")

MAX_CONCURRENT: Mapping[Action, int] = {Action.START: 4, Action.STOP: 16, Action.END: 8}
"""Concurrent tasks of each action."""
MAX_CONCURRENT_DELETIONS = 2


class JobTasks:
    """Runs at most one task for each job. A cancelled task is repeated after a restart."""

    def __init__(self) -> None:
        self._slots = {
            action: asyncio.Semaphore(number) for action, number in MAX_CONCURRENT.items()
        }
        self._tasks: dict[str, asyncio.Task[None]] = {}
        # Threads of their own: asyncio has few of them, and starts need those.
        self._collecting = ThreadPoolExecutor(MAX_CONCURRENT[Action.END], "collect")
        self._deleting = ThreadPoolExecutor(MAX_CONCURRENT_DELETIONS, "delete")

    def busy_jobs(self) -> set[str]:
        return set(self._tasks)

    def begin(
        self,
        job_id: str,
        action: Action,
        function: Callable[[], Awaitable[None]],
        failed: Callable[[Exception], None],
    ) -> None:
        """Call `function` when the action has a free slot, and `failed` with an exception of it."""

        async def act() -> None:
            try:
                async with self._slots[action]:
                    await function()
            except Exception as error:
                failed(error)
            finally:
                del self._tasks[job_id]

        self._tasks[job_id] = asyncio.create_task(act())

    async def collect(self, function: Callable[[], Value]) -> Value:
        """Call a function that may move many files in a thread."""
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(
            self._collecting, context.run, function
        )

    def delete(self, directory: Path) -> None:
        self._deleting.submit(contextvars.copy_context().run, _delete, directory)

    async def close(self) -> None:
        """Cancel the tasks; a function that runs in a thread goes on."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for pool in (self._collecting, self._deleting):
            pool.shutdown(wait=False, cancel_futures=True)


def _delete(directory: Path) -> None:
    try:
        trees.delete_tree(directory)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("The directory %s could not be deleted: %s", directory, error)
