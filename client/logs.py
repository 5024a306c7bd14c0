"""What clients read of a job's output: from its provider, by sessions that are asked for anew if
one breaks.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta

from pydantic import ValidationError
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from client.errors import OrchestratorError, RequestRefused, Unreachable
from client.queries import JobReader
from ucloud_orchestrator.models.backoff import Backoff
from ucloud_orchestrator.models.errors import ErrorCode
from ucloud_orchestrator.models.job import Job, JobState
from ucloud_orchestrator.models.messages import OpenLogsCall
from ucloud_orchestrator.models.provider_api import FollowMessage, LogsRequest, LogStream
from ucloud_orchestrator.models.session import LogsSession, with_verifier
from ucloud_orchestrator.temporal import names

INITIAL_BACKOFF = 0.25
MAX_BACKOFF = 10.0
"""Seconds between two attempts to get a session. A session that lasted so long resets the backoff."""
DEFAULT_TIMEOUT = timedelta(minutes=5)
MAXIMUM_MESSAGE = 8 * 1024 * 1024
"""Bytes; a piece of output grows in JSON, where a control character takes six."""


class LogReader(JobReader):
    """The part of `JobClient` that reads the output of jobs."""

    async def follow_logs(
        self,
        job_id: str,
        rank: int | None = None,
        stream: LogStream | None = None,
        follow: bool = True,
        timeout: timedelta = DEFAULT_TIMEOUT,
    ) -> AsyncIterator[FollowMessage]:
        """What the job writes, from its beginning, until it has ended and all was given; READ
        suffices.

        Waits while the job is in the queue, and goes on where it was when a connection breaks. All
        ranks and both streams, unless one is named; without `follow` what there is now. Each
        message has `stdout` or `stderr` of one rank, cut anywhere between two characters.

        Raises `JobNotFound`; `RequestRefused` with `FEATURE_NOT_SUPPORTED_BY_PROVIDER` if the
        product has no logs, or with `PROVIDER_REJECTED` if the provider does not have them; and
        `Unreachable` if there was no connection for longer than `timeout`.
        """
        job = await self.retrieve(job_id)
        if follow and job.status.state is JobState.IN_QUEUE:
            async for job in self.follow(job_id):
                if job.status.state is not JobState.IN_QUEUE:
                    break
        request = LogsRequest(rank=rank, stream=stream, follow=follow)
        reconnection = _Reconnection(timeout.total_seconds())
        while True:
            try:
                job = await self.retrieve(job_id)
                session = await self._open_logs(job)
                async with connect(
                    session.url, compression=None, max_size=MAXIMUM_MESSAGE
                ) as socket:
                    reconnection.connected()
                    await socket.send(json.dumps(request.to_wire()))
                    async for text in socket:
                        message = FollowMessage.model_validate_json(text)
                        reconnection.received()
                        if message.ended:
                            return
                        request = _after(request, message)
                        yield message
                why = "it was closed before the end"
            except RequestRefused as error:
                if error.code is ErrorCode.PROVIDER_REJECTED and job.status.started_at is None:
                    return  # the provider has not started it, so it has written nothing
                raise
            except ValidationError as error:
                raise OrchestratorError(
                    "The provider sent something that is no output of a job."
                ) from error
            except (WebSocketException, OSError, Unreachable) as error:
                why = str(error) or type(error).__name__
            await reconnection.wait(why)

    async def _open_logs(self, job: Job) -> LogsSession:
        """As `open_session`: Temporal keeps nothing that opens the session."""
        verifier = secrets.token_urlsafe(32)
        challenge = hashlib.sha256(verifier.encode()).hexdigest()
        call = OpenLogsCall(
            job=job.model_copy(update={"updates": [], "omitted_updates": 0}), challenge=challenge
        )
        queue = names.provider_task_queue(job.specification.product.provider)
        session = with_verifier(
            await self._ask_worker(names.ACTIVITY_OPEN_LOGS, call, LogsSession, queue), verifier
        )
        assert isinstance(session, LogsSession)
        return session


@dataclass
class _Reconnection:
    """When to try again, and when to give up."""

    timeout: float
    _backoff: Backoff = field(default_factory=lambda: Backoff(INITIAL_BACKOFF, MAX_BACKOFF))
    _connected_at: float | None = None
    _broken_since: float = field(default_factory=time.monotonic)

    def connected(self) -> None:
        self._connected_at = time.monotonic()

    def received(self) -> None:
        self._backoff.reset()
        self._broken_since = time.monotonic()

    async def wait(self, why: str) -> None:
        """Raises `Unreachable`."""
        now = time.monotonic()
        if self._connected_at is not None and now - self._connected_at > MAX_BACKOFF:
            self._backoff.reset()
            self._broken_since = now
        self._connected_at = None
        if now - self._broken_since > self.timeout:
            raise Unreachable(f"The job's output cannot be read from its provider: {why}.")
        await asyncio.sleep(self._backoff.next_delay())


def _after(request: LogsRequest, message: FollowMessage) -> LogsRequest:
    """The request that goes on after that message."""
    if message.position is None:
        return request
    stream = LogStream.STDOUT if message.stdout is not None else LogStream.STDERR
    positions = request.positions | {f"{message.rank}.{stream}": message.position}
    return request.model_copy(update={"positions": positions})
