"""Interactive sessions: their addresses for the orchestrator, and their routes for clients.

Each route checks the token of its session.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse
from starlette.datastructures import QueryParams
from starlette.responses import Response

from ucloud_orchestrator.models.application import VncDescription
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
from ucloud_orchestrator.provider.jobs.preparation import resolved
from ucloud_orchestrator.provider.jobs.reconciler import Reconciler
from ucloud_orchestrator.provider.sessions.pages import desktop_page, terminal_page
from ucloud_orchestrator.provider.sessions.shell import serve_shell
from ucloud_orchestrator.provider.sessions.vnc import serve_desktop
from ucloud_orchestrator.provider.sessions.web import WebSessions
from ucloud_orchestrator.provider.sessions.websocket import deny, invalid_token, redeem_token

log = logging.getLogger(__name__)

CONFLICT, UNAVAILABLE = 409, 503
NOT_RUNNING = "The job does not run any more."


class Sessions:
    """The sessions of the jobs that run here; `prefix` begins the paths of their routes."""

    def __init__(
        self, prefix: str, tokens: SessionTokens, reconciler: Reconciler, web: WebSessions
    ) -> None:
        self._prefix = prefix
        self._tokens = tokens
        self._reconciler = reconciler
        self._metrics = reconciler.metrics
        self._web = web

    def open(self, item: SessionItem, job: Job, base_url: str) -> OpenSession:
        """Return the address of a session with a new token. Raises `SessionNotSupported`.

        `base_url` is this provider's address for clients.
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
        router = APIRouter(prefix=self._prefix)
        router.add_api_websocket_route("/shell", self.shell)
        router.add_api_websocket_route("/vnc", self.vnc)
        router.add_api_route("/terminal", self.terminal, methods=["GET"])
        router.add_api_route("/desktop", self.desktop, methods=["GET"])
        return router

    async def shell(self, socket: WebSocket) -> None:
        session = await redeem_token(socket, self._tokens, SessionType.SHELL)
        if session is None:
            return
        target = await self._reconciler.exec_target(session.job_id, session.rank)
        if target is None:
            await deny(socket, CONFLICT, NOT_RUNNING)
            return
        await socket.accept()
        with self._in_session(session):
            try:
                await serve_shell(socket, target)
                await socket.close()
            except ExecError as error:
                await socket.close(1011, str(error))
            except (WebSocketDisconnect, TimeoutError, RuntimeError, OSError) as error:
                _log_closed(session, error)

    async def vnc(self, socket: WebSocket) -> None:
        session = await redeem_token(socket, self._tokens, SessionType.VNC)
        if session is None:
            return
        vnc = await self._vnc_of(session)
        if vnc is None:
            await deny(socket, CONFLICT, NOT_RUNNING)
            return
        with self._in_session(session):
            try:
                networks = self._reconciler.networks
                endpoint = await networks.endpoint(session.job_id, session.rank, vnc.port)
                await serve_desktop(socket, endpoint)
                await socket.close()
            except (OSError, ValueError, NetworkNotFound) as error:
                _log_closed(session, error)
                why = "The desktop does not answer yet; ask for a new session."
                await deny(socket, UNAVAILABLE, why)
            except (WebSocketDisconnect, RuntimeError) as error:
                _log_closed(session, error)

    async def terminal(self, request: Request) -> Response:
        try:
            self._check(request.query_params, SessionType.SHELL)
        except InvalidSessionToken as error:
            return invalid_token(error)
        return terminal_page()

    async def desktop(self, request: Request) -> Response:
        try:
            session = self._check(request.query_params, SessionType.VNC)
        except InvalidSessionToken as error:
            return invalid_token(error)
        vnc = await self._vnc_of(session)
        if vnc is None:
            return JSONResponse({"why": NOT_RUNNING}, CONFLICT)
        return desktop_page(vnc.password)

    @contextlib.contextmanager
    def _in_session(self, session: Session) -> Iterator[None]:
        session_type = session.session_type
        with job_log_context(session.job_id), self._metrics.session(session_type):
            log.info(
                "A session of type %s was opened in rank %s of job %s.",
                session_type,
                session.rank,
                session.job_id,
            )
            yield

    async def _vnc_of(self, session: Session) -> VncDescription | None:
        """Return the application's VNC server; None if its rank does not run."""
        job = await self._reconciler.running_job(session.job_id)
        if job is None or session.rank >= job.specification.replicas:
            return None
        return resolved(job)[0].vnc

    def _check(self, query: QueryParams, session_type: SessionType) -> Session:
        return self._tokens.check(query.get("token"), session_type, query.get("verifier"))


def _log_closed(session: Session, error: Exception) -> None:
    log.info(
        "A session of type %s in job %s was closed: %s",
        session.session_type,
        session.job_id,
        error or type(error).__name__,
    )


def _as_websocket(url: str) -> str:
    return "ws" + url.removeprefix("http")
