"""Reads the output of jobs from their providers, by sessions that are reopened when they break."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta

from pydantic import ValidationError
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from client.connection import ActorConnection
from client.errors import OrchestratorError, RequestRefused, Unreachable
from client.reader import JobReader
from ucloud_orchestrator.models.backoff import Backoff
from ucloud_orchestrator.models.errors import ErrorCode
from ucloud_orchestrator.models.job import Job, JobState
from ucloud_orchestrator.models.messages import OpenLogsCall
from ucloud_orchestrator.models.provider_api import FollowMessage, LogsRequest, LogStream
from ucloud_orchestrator.models.session import LogsSession, challenge_of, with_verifier
from ucloud_orchestrator.temporal import names

INITIAL_BACKOFF = 0.25
MAX_BACKOFF = 10.0
"""Seconds between two attempts to open a session. A session of that length resets the backoff."""
DEFAULT_TIMEOUT = timedelta(minutes=5)
MAXIMUM_MESSAGE = 8 * 1024 * 1024
"""Bytes. A chunk of output grows in JSON, where a control character takes six."""


class LogReader:
    def __init__(self, connection: ActorConnection, reader: JobReader) -> None:
        self._connection = connection
        self._reader = reader

    async def follow(
        self, job_id: str, request: LogsRequest, timeout: timedelta
    ) -> AsyncIterator[FollowMessage]:
        """Yield the job's output; after a broken connection from where it stopped."""
        job = await self._reader.retrieve(job_id)
        if request.follow and job.status.state is JobState.IN_QUEUE:
            async for job in self._reader.follow(job_id):
                if job.status.state is not JobState.IN_QUEUE:
                    break
        reconnection = _Reconnection(timeout.total_seconds())
        while True:
            try:
                job = await self._reader.retrieve(job_id)
                session = await self._open_session(job)
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
                reason = "it was closed before the end"
            except RequestRefused as error:
                if error.code is ErrorCode.PROVIDER_REJECTED and job.status.started_at is None:
                    return  # the provider has not started the job, so there is no output
                raise
            except ValidationError as error:
                raise OrchestratorError(
                    "The provider sent something that is not output of a job."
                ) from error
            except (WebSocketException, OSError, Unreachable) as error:
                reason = str(error) or type(error).__name__
            await reconnection.wait(reason)

    async def _open_session(self, job: Job) -> LogsSession:
        """Open a session. Temporal keeps its addresses without the verifier."""
        verifier = secrets.token_urlsafe(32)
        call = OpenLogsCall(
            job=job.model_copy(update={"updates": [], "omitted_updates": 0}),
            challenge=challenge_of(verifier),
        )
        queue = names.provider_task_queue(job.specification.product.provider)
        session = await self._connection.execute_activity(
            names.ACTIVITY_OPEN_LOGS, call, LogsSession, queue
        )
        return with_verifier(session, verifier)


@dataclass
class _Reconnection:
    """Decides when to connect again, and when to give up. Times are in seconds."""

    timeout: float
    _backoff: Backoff = field(default_factory=lambda: Backoff(INITIAL_BACKOFF, MAX_BACKOFF))
    _connected_at: float | None = None
    _broken_since: float = field(default_factory=time.monotonic)

    def connected(self) -> None:
        self._connected_at = time.monotonic()

    def received(self) -> None:
        self._reset()

    async def wait(self, reason: str) -> None:
        """Wait before the next connection. Raises `Unreachable` after the timeout."""
        now = time.monotonic()
        if self._connected_at is not None and now - self._connected_at > MAX_BACKOFF:
            self._reset()
        self._connected_at = None
        if now - self._broken_since > self.timeout:
            raise Unreachable(f"The job's output cannot be read from its provider: {reason}.")
        await asyncio.sleep(self._backoff.next_delay())

    def _reset(self) -> None:
        self._backoff.reset()
        self._broken_since = time.monotonic()


def _after(request: LogsRequest, message: FollowMessage) -> LogsRequest:
    if message.position is None:
        return request
    stream = LogStream.STDOUT if message.stdout is not None else LogStream.STDERR
    positions = request.positions | {f"{message.rank}.{stream}": message.position}
    return request.model_copy(update={"positions": positions})
