"""Cancel `follow_job` while a job writes as fast as it can."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

from client import JobClient
from tests.builders import shell_job
from tests.waiting import eventually
from ucloud_orchestrator.cli.follow import follow_job
from ucloud_orchestrator.models.job import Job
from ucloud_orchestrator.models.provider_api import FollowMessage


class EndlessWriter:
    """A client whose job never ends and writes as fast as it is read.

    No real job does so reliably.
    """

    def __init__(self) -> None:
        self.read = 0

    async def retrieve(self, _job_id: str) -> Job:
        return Job.model_validate(shell_job("yes"))

    async def follow(self, job_id: str) -> AsyncIterator[Job]:
        yield await self.retrieve(job_id)
        await asyncio.Event().wait()

    async def follow_logs(self, _job_id: str, **_options: Any) -> AsyncIterator[FollowMessage]:
        while True:
            self.read += 1
            yield FollowMessage(stream_id="s", rank=0, stdout="y\n")


async def test_follow_can_be_cancelled_while_a_job_writes() -> None:
    for loop_turns in range(20):
        client = EndlessWriter()
        following = asyncio.create_task(follow_job(cast(JobClient, client), "id", as_json=False))
        await eventually(lambda client=client: client.read > 100)  # type: ignore[misc]
        for _ in range(loop_turns):
            await asyncio.sleep(0)
        following.cancel()
        async with asyncio.timeout(10):
            with contextlib.suppress(asyncio.CancelledError):
                await following
        assert following.cancelled()
