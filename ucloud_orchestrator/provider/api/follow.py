"""The WebSocket `follow` of UCloud's compute provider API: a job's output as it is written."""

from __future__ import annotations

import contextlib
import uuid

from fastapi import APIRouter, WebSocket, WebSocketDisconnect, WebSocketException
from pydantic import ValidationError

from ucloud_orchestrator.models.base import error_messages
from ucloud_orchestrator.models.job import Job
from ucloud_orchestrator.models.provider_api import FollowRequest
from ucloud_orchestrator.provider.auth.authentication import Authentication
from ucloud_orchestrator.provider.errors import NotAuthenticated
from ucloud_orchestrator.provider.jobs.database import JobDatabase
from ucloud_orchestrator.provider.jobs.directories import JobDirectories
from ucloud_orchestrator.provider.sessions.log_files import stream
from ucloud_orchestrator.provider.sessions.race import race
from ucloud_orchestrator.provider.sessions.websocket import received_text, truncate_close_reason


class Follow:
    def __init__(
        self, database: JobDatabase, directories: JobDirectories, authentication: Authentication
    ) -> None:
        self._database = database
        self._folders = directories
        self._authentication = authentication

    def router(self, provider_id: str) -> APIRouter:
        router = APIRouter()
        router.add_api_websocket_route(f"/ucloud/{provider_id}/jobs/follow", self.follow)
        return router

    async def follow(self, socket: WebSocket) -> None:
        """Stream a job's output; `{type: cancel}` or closing the connection ends it."""
        try:
            self._authentication.check(socket.headers.get("authorization"))
        except NotAuthenticated as error:
            raise WebSocketException(1008, str(error)) from error
        await socket.accept()
        with contextlib.suppress(WebSocketDisconnect):
            if (job := await self._requested_job(socket)) is not None:
                await self._stream_until_cancelled(socket, job)

    async def _requested_job(self, socket: WebSocket) -> Job | None:
        """Return the job of the first message; None once the socket is closed with the reason."""
        try:
            request = FollowRequest.model_validate_json(await received_text(socket))
        except ValidationError as error:
            await socket.close(1003, truncate_close_reason(" ".join(error_messages(error))))
            return None
        record = await self._database.find(request.job.id) if request.job else None
        if request.type != "init" or record is None:
            await socket.close(
                1003, "The first message must be init, with a job that is known here."
            )
            return None
        return record.job

    async def _stream_until_cancelled(self, socket: WebSocket, job: Job) -> None:
        await race(self._send_output(socket, job), _wait_for_cancel(socket))
        with contextlib.suppress(RuntimeError):  # the other side may have closed it
            await socket.close()

    async def _send_output(self, socket: WebSocket, job: Job) -> None:
        async def has_ended() -> bool:
            record = await self._database.find(job.id)
            return record is None or record.has_ended

        output = self._folders.output(job.id)
        replicas = job.specification.replicas
        async for message in stream(output, replicas, str(uuid.uuid4()), has_ended):
            await socket.send_json(message.to_wire())


async def _wait_for_cancel(socket: WebSocket) -> None:
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            text = await received_text(socket)
            with contextlib.suppress(ValidationError):
                if FollowRequest.model_validate_json(text).type == "cancel":
                    return
