"""Sessions of type `LOGS`: a job's output for clients. They are ours and not UCloud's.

The client's first message is a `LogsRequest`. It gets `FollowMessage`s with their `position`, from
which a later session can continue, and at the end one with `ended`. Sending waits for the client. A
client that reads nothing for `SEND_TIMEOUT` is disconnected.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import ValidationError

from ucloud_orchestrator.models.base import error_messages
from ucloud_orchestrator.models.provider_api import FollowMessage, LogsRequest, LogStream
from ucloud_orchestrator.models.session import LogsSession, SessionItem, SessionType
from ucloud_orchestrator.process.logging import job_log_context
from ucloud_orchestrator.provider.auth.session_tokens import Session, SessionTokens
from ucloud_orchestrator.provider.jobs.database import JobDatabase
from ucloud_orchestrator.provider.jobs.metrics import ProviderMetrics
from ucloud_orchestrator.provider.sessions.log_files import Selection, chunks, message
from ucloud_orchestrator.provider.sessions.race import race
from ucloud_orchestrator.provider.sessions.websocket import (
    received_text,
    redeem_token,
    truncate_close_reason,
)

log = logging.getLogger(__name__)

REQUEST_TIMEOUT = 10.0
"""Seconds until the client's first message."""
SEND_TIMEOUT = 60.0
"""Seconds for which a client may read nothing."""
CONTROL_RANK = -1
"""The rank of messages that are not output."""


class LogSessions:
    """The output of the jobs in the database, also of those that have ended."""

    def __init__(
        self,
        prefix: str,
        tokens: SessionTokens,
        database: JobDatabase,
        output_folder: Callable[[str], Path],
        metrics: ProviderMetrics,
    ) -> None:
        self._prefix = prefix
        self._tokens = tokens
        self._database = database
        self._output_folder = output_folder
        self._metrics = metrics

    async def open(self, item: SessionItem, base_url: str) -> LogsSession | None:
        """Return the address of a job's output with a new token; None if the job is unknown.

        `base_url` is this provider's address for clients.
        """
        if await self._database.find(item.job.id) is None:
            return None
        token = self._tokens.issue(
            Session(item.job.id, item.rank, item.session_type), challenge=item.challenge
        )
        address = "ws" + f"{base_url.rstrip('/')}{self._prefix}/logs".removeprefix("http")
        return LogsSession(
            job_id=item.job.id,
            rank=item.rank,
            needs_verifier=item.challenge is not None,
            url=f"{address}?{urlencode({'token': token})}",
        )

    def router(self) -> APIRouter:
        router = APIRouter(prefix=self._prefix)
        router.add_api_websocket_route("/logs", self.logs)
        return router

    async def logs(self, socket: WebSocket) -> None:
        """Stream a job's output from the requested positions."""
        session = await redeem_token(socket, self._tokens, SessionType.LOGS)
        if session is None:
            return
        await socket.accept()
        with job_log_context(session.job_id), self._metrics.session(SessionType.LOGS):
            try:
                await self._serve(socket, session.job_id)
            except (WebSocketDisconnect, TimeoutError, RuntimeError, OSError) as error:
                log.info(
                    "A reader of job %s's output left: %s",
                    session.job_id,
                    error or type(error).__name__,
                )

    async def _serve(self, socket: WebSocket, job_id: str) -> None:
        record = await self._database.find(job_id)
        if record is None:
            await socket.close(1011, "The job is not known here any more.")
            return
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                text = await received_text(socket)
            selection = _selection(
                LogsRequest.model_validate_json(text), record.job.specification.replicas
            )
        except ValidationError as error:
            await socket.close(1003, truncate_close_reason(" ".join(error_messages(error))))
            return
        sending, leaving = await race(
            self._send(socket, job_id, selection), _wait_for_disconnect(socket)
        )
        if not sending.cancelled():
            sending.result()
        if leaving.cancelled():
            await socket.close()

    async def _send(self, socket: WebSocket, job_id: str, selection: Selection) -> None:
        async def has_ended() -> bool:
            record = await self._database.find(job_id)
            return record is None or record.has_ended

        stream_id = str(uuid.uuid4())
        async for chunk in chunks(self._output_folder(job_id), selection, has_ended):
            output = message(chunk, stream_id).model_copy(update={"position": chunk.position})
            async with asyncio.timeout(SEND_TIMEOUT):
                await socket.send_json(output.to_wire())
        await socket.send_json(
            FollowMessage(stream_id=stream_id, rank=CONTROL_RANK, ended=True).to_wire()
        )


def _selection(request: LogsRequest, replicas: int) -> Selection:
    ranks = [rank for rank in range(replicas) if request.rank in {None, rank}]
    streams = [request.stream] if request.stream else list(LogStream)
    return Selection(ranks, streams, request.positions, request.follow)


async def _wait_for_disconnect(socket: WebSocket) -> None:
    """Read and drop the client's further messages."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass
