"""Interactive sessions: their addresses for the orchestrator, and where clients come in with their tokens."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse

from models.session import OpenSession, SessionItem, SessionType, ShellSession
from provider.entering import NotEntered
from provider.session_tokens import NotOpened, Session, SessionTokens
from provider.shells import serve_shell

log = logging.getLogger(__name__)

UNAUTHENTICATED, FORBIDDEN, CONFLICT = 401, 403, 409


class Sessions:
    """The sessions of the jobs that run here.

    `wrapper_of` gives the process id of a running replica's wrapper, or None.
    """

    def __init__(
        self, prefix: str, tokens: SessionTokens, wrapper_of: Callable[[str, int], Awaitable[int | None]]
    ) -> None:
        self._prefix = prefix
        self._tokens = tokens
        self._wrapper_of = wrapper_of

    def open(self, item: SessionItem, base_url: str) -> OpenSession:
        """The address of a session, with a new token. `base_url` is where clients reach this provider."""
        session = Session(item.job.id, item.rank, item.session_type)
        token = self._tokens.issue(session, challenge=item.challenge)
        query = urlencode({"token": token})
        http = f"{base_url.rstrip('/')}{self._prefix}"
        return ShellSession(
            job_id=item.job.id,
            rank=item.rank,
            needs_verifier=item.challenge is not None,
            session_identifier=token,
            url=f"{_as_websocket(http)}/shell?{query}",
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
            wrapper = await self._wrapper_of(session.job_id, session.rank)
            if wrapper is None:
                await _deny(socket, CONFLICT, "The job does not run any more.")
                return
            await socket.accept()
            log.info("A terminal was opened in rank %s of job %s.", session.rank, session.job_id)
            try:
                await serve_shell(socket, wrapper)
                await socket.close()
            except NotEntered as error:
                await socket.close(1011, str(error))
            except (WebSocketDisconnect, TimeoutError, RuntimeError, OSError) as error:
                log.info("A terminal in job %s was closed: %s", session.job_id, error or type(error).__name__)

        return router

    async def _redeemed(self, socket: WebSocket, session_type: SessionType) -> Session | None:
        """What the socket's token opens; None if that is nothing, which the other side was told."""
        try:
            query = socket.query_params
            return self._tokens.redeem(query.get("token"), session_type, query.get("verifier"))
        except NotOpened as error:
            await _deny(socket, FORBIDDEN if error.is_known else UNAUTHENTICATED, str(error))
            return None


def _as_websocket(url: str) -> str:
    return "ws" + url.removeprefix("http")


async def _deny(socket: WebSocket, status: int, why: str) -> None:
    await socket.send_denial_response(JSONResponse({"why": why}, status))
