"""Interactive sessions: their addresses for the orchestrator, and where clients come in with their
tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from urllib.parse import urlencode

from fastapi import APIRouter, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse
from starlette.datastructures import QueryParams
from starlette.responses import Response

from ucloud_orchestrator.models.application import Application
from ucloud_orchestrator.models.job import Job
from ucloud_orchestrator.models.session import (
    OpenSession,
    SessionItem,
    SessionType,
    ShellSession,
    VncSession,
    WebSession,
)
from ucloud_orchestrator.process.logging import job_log_context
from ucloud_orchestrator.provider.auth.session_tokens import Session, SessionTokens
from ucloud_orchestrator.provider.errors import (
    ExecError,
    InvalidSessionToken,
    NetworkNotFound,
    SessionNotSupported,
)
from ucloud_orchestrator.provider.jobs.metrics import ProviderMetrics
from ucloud_orchestrator.provider.jobs.preparation import resolved
from ucloud_orchestrator.provider.network.endpoint import Endpoint
from ucloud_orchestrator.provider.sandbox.exec import ExecTarget
from ucloud_orchestrator.provider.sessions.pages import desktop_page, terminal_page
from ucloud_orchestrator.provider.sessions.shell import serve_shell
from ucloud_orchestrator.provider.sessions.vnc import serve_desktop
from ucloud_orchestrator.provider.sessions.web import WebSessions

log = logging.getLogger(__name__)

UNAUTHENTICATED, FORBIDDEN, CONFLICT, UNAVAILABLE = 401, 403, 409, 503


class Running(Protocol):
    """What is asked of the runner."""

    async def exec_target(self, job_id: str, rank: int) -> ExecTarget | None:
        """How a program comes into a running replica; None if there is none."""

    async def running_job(self, job_id: str) -> Job | None:
        """The job, while it runs."""


Reach = Callable[[str, int, int], Awaitable[Endpoint]]
"""Where a port of a job's rank is reached."""


class Sessions:
    """The sessions of the jobs that run here."""

    def __init__(
        self,
        prefix: str,
        tokens: SessionTokens,
        running: Running,
        reach: Reach,
        web: WebSessions,
        figures: ProviderMetrics,
    ) -> None:
        self._prefix = prefix
        self._tokens = tokens
        self._running = running
        self._reach = reach
        self._web = web
        self._figures = figures

    def open(self, item: SessionItem, job: Job, base_url: str) -> OpenSession:
        """The address of a session, with a new token. `base_url` is where clients reach this
        provider.

        Raises `SessionNotSupported`.
        """
        application, _ = resolved(job)
        session = Session(item.job.id, item.rank, item.session_type)
        token = self._tokens.issue(session, challenge=item.challenge)
        query = urlencode({"token": token})
        http = f"{base_url.rstrip('/')}{self._prefix}"
        common: dict[str, Any] = {
            "job_id": job.id,
            "rank": item.rank,
            "needs_verifier": item.challenge is not None,
        }
        match item.session_type:
            case SessionType.SHELL:
                return ShellSession(
                    **common,
                    session_identifier=token,
                    url=f"{_as_websocket(http)}/shell?{query}",
                    page=f"{http}/terminal?{query}",
                )
            case SessionType.WEB if application.web is not None:
                address = self._web.address(job.id, item.rank, base_url)
                return WebSession(**common, redirect_client_to=f"{address}?{query}")
            case SessionType.VNC if application.vnc is not None:
                return VncSession(
                    **common,
                    url=f"{_as_websocket(http)}/vnc?{query}",
                    password=application.vnc.password,
                    page=f"{http}/desktop?{query}",
                )
        raise SessionNotSupported(
            f"The application {application.reference} has no session of type {item.session_type}."
        )

    def router(self) -> APIRouter:
        """The addresses; each checks its own token."""
        router = APIRouter(prefix=self._prefix)

        @router.websocket("/shell")
        async def shell(socket: WebSocket) -> None:
            """A terminal in a replica."""
            session = await self._redeemed(socket, SessionType.SHELL)
            if session is None:
                return
            way_in = await self._running.exec_target(session.job_id, session.rank)
            if way_in is None:
                await _deny(socket, CONFLICT, "The job does not run any more.")
                return
            await socket.accept()
            with job_log_context(session.job_id), self._figures.session(SessionType.SHELL):
                log.info(
                    "A terminal was opened in rank %s of job %s.", session.rank, session.job_id
                )
                try:
                    await serve_shell(socket, way_in)
                    await socket.close()
                except ExecError as error:
                    await socket.close(1011, str(error))
                except (WebSocketDisconnect, TimeoutError, RuntimeError, OSError) as error:
                    log.info(
                        "A terminal in job %s was closed: %s",
                        session.job_id,
                        error or type(error).__name__,
                    )

        @router.websocket("/vnc")
        async def vnc(socket: WebSocket) -> None:
            """The desktop of a replica."""
            session = await self._redeemed(socket, SessionType.VNC)
            if session is None:
                return
            application = await self._application_of(session)
            if application is None or application.vnc is None:
                await _deny(socket, CONFLICT, "The job does not run any more.")
                return
            with job_log_context(session.job_id), self._figures.session(SessionType.VNC):
                log.info(
                    "The desktop of rank %s of job %s was opened.", session.rank, session.job_id
                )
                try:
                    endpoint = await self._reach(session.job_id, session.rank, application.vnc.port)
                    await serve_desktop(socket, endpoint)
                    await socket.close()
                except (OSError, ValueError, NetworkNotFound) as error:
                    log.info(
                        "The desktop of job %s did not answer: %s",
                        session.job_id,
                        error or type(error).__name__,
                    )
                    await _deny(
                        socket,
                        UNAVAILABLE,
                        "The desktop does not answer yet; ask for a new session.",
                    )
                except (WebSocketDisconnect, RuntimeError) as error:
                    log.info(
                        "A desktop of job %s was closed: %s",
                        session.job_id,
                        error or type(error).__name__,
                    )

        @router.get("/terminal")
        async def terminal(request: Request) -> Response:
            """A page with a terminal; its script opens the session."""
            try:
                self._checked(request.query_params, SessionType.SHELL)
            except InvalidSessionToken as error:
                return _refusal(error)
            return terminal_page()

        @router.get("/desktop")
        async def desktop(request: Request) -> Response:
            """A page with a desktop; its script opens the session."""
            try:
                session = self._checked(request.query_params, SessionType.VNC)
            except InvalidSessionToken as error:
                return _refusal(error)
            application = await self._application_of(session)
            if application is None or application.vnc is None:
                return JSONResponse({"why": "The job does not run any more."}, CONFLICT)
            return desktop_page(application.vnc.password)

        return router

    async def _application_of(self, session: Session) -> Application | None:
        job = await self._running.running_job(session.job_id)
        if job is None or session.rank >= job.specification.replicas:
            return None
        return resolved(job)[0]

    def _checked(self, query: QueryParams, session_type: SessionType) -> Session:
        return self._tokens.check(query.get("token"), session_type, query.get("verifier"))

    async def _redeemed(self, socket: WebSocket, session_type: SessionType) -> Session | None:
        """What the socket's token opens; None if that is nothing, which the other side was told."""
        try:
            query = socket.query_params
            return self._tokens.redeem(query.get("token"), session_type, query.get("verifier"))
        except InvalidSessionToken as error:
            await socket.send_denial_response(_refusal(error))
            return None


def _refusal(error: InvalidSessionToken) -> Response:
    return JSONResponse({"why": str(error)}, FORBIDDEN if error.is_known else UNAUTHENTICATED)


def _as_websocket(url: str) -> str:
    return "ws" + url.removeprefix("http")


async def _deny(socket: WebSocket, status: int, why: str) -> None:
    await socket.send_denial_response(JSONResponse({"why": why}, status))
