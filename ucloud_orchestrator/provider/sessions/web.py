"""Web applications of replicas in the browser: who may come in, and by which address.

An application has the host name `<job>-<rank>.<web domain>` if the provider has such a domain, and
else a path of the provider. There a token is exchanged, once, for a cookie that is good for that
replica alone. Under the domain of a public link that is bound to a running job the application is
open to everybody.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from http.cookies import SimpleCookie
from typing import Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ucloud_orchestrator.models.job import Job
from ucloud_orchestrator.models.session import SessionType
from ucloud_orchestrator.process.logging import job_log_context
from ucloud_orchestrator.provider.auth.session_tokens import Session, SessionTokens
from ucloud_orchestrator.provider.errors import AccessDenied, InvalidSessionToken, NetworkNotFound
from ucloud_orchestrator.provider.jobs.metrics import ProviderMetrics
from ucloud_orchestrator.provider.jobs.preparation import resolved
from ucloud_orchestrator.provider.network.endpoint import Endpoint
from ucloud_orchestrator.provider.sessions.http_proxy import proxy_http
from ucloud_orchestrator.provider.sessions.proxy_headers import (
    COOKIE,
    ProxyTarget,
    cookie_of,
    header,
    host_name,
)
from ucloud_orchestrator.provider.sessions.websocket_proxy import proxy_websocket

log = logging.getLogger(__name__)

SESSION_OPEN_PATH = "/.ucloud/open"
"""The path of a place at which a token is exchanged for a cookie; the application never sees
requests for it.
"""
COOKIE_LIFETIME = 24 * 3600
"""Seconds after which a browser needs a new session; its job may end before."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
HOST_LABEL = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""`<job>-<rank>` as it can be part of a host name; other jobs have a path."""
RANK = re.compile(r"[0-9]{1,6}")
NO_RANK = -1
"""The rank in an address that names none; no token is for it."""
UNAUTHENTICATED, FORBIDDEN, GONE = 401, 403, 404


class RunningJobs(Protocol):
    """What is asked of the runner."""

    async def running_job(self, job_id: str) -> Job | None:
        """The job, while it runs."""

    def job_at(self, host: str) -> str | None:
        """The id of the job whose public link has that domain."""


class WebSessions:
    """The addresses of web applications, for the provider's other parts; `middleware` serves
    them.
    """

    def __init__(
        self,
        path: str,
        public_url: str | None,
        web_domain: str | None,
        tokens: SessionTokens,
        cookies: SessionTokens,
        jobs: RunningJobs,
        reach: Callable[[str, int, int], Awaitable[Endpoint]],
        figures: ProviderMetrics,
    ) -> None:
        self._path = path
        self._public_url = public_url
        self._web_domain = web_domain.lower() if web_domain else None
        self._tokens = tokens
        self._cookies = cookies
        self._jobs = jobs
        self._reach = reach
        self._figures = figures

    def address(self, job_id: str, rank: int, base_url: str) -> str:
        """Where a browser that has a token for it comes in; `base_url` is where clients reach this
        provider.
        """
        if self._web_domain and HOST_LABEL.fullmatch(f"{job_id}-{rank}"):
            return f"{urlsplit(base_url).scheme}://{job_id}-{rank}.{self._web_domain}{SESSION_OPEN_PATH}"
        return f"{base_url.rstrip('/')}{self._path}/{job_id}/{rank}{SESSION_OPEN_PATH}"

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """The server that answers for applications, and gives all other requests to `app`."""

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            place = self._place(scope) if scope["type"] in {"http", "websocket"} else None
            if place is None:
                await app(scope, receive, send)
                return
            try:
                answer = await self._serve(scope, receive, send, place)
            except AccessDenied as error:
                answer = JSONResponse({"why": str(error)}, error.status)
            except InvalidSessionToken as error:
                answer = JSONResponse(
                    {"why": str(error)}, FORBIDDEN if error.is_known else UNAUTHENTICATED
                )
            if answer is not None:
                await _answer(answer, scope, receive, send)

        return serve

    def _place(self, scope: Scope) -> ProxyTarget | None:
        host = host_name(header(scope, b"host"))
        if (job_id := self._jobs.job_at(host)) is not None:
            return ProxyTarget(job_id, 0, is_public=True)
        if self._web_domain and host.endswith(domain := f".{host_name(self._web_domain)}"):
            job_id, _, rank = host.removesuffix(domain).rpartition("-")
            return ProxyTarget(job_id, _rank(rank))
        if scope["path"].startswith(f"{self._path}/"):
            words = scope["path"].removeprefix(f"{self._path}/").split("/")
            rank = words[1] if len(words) > 1 else ""
            return ProxyTarget(words[0], _rank(rank), f"{self._path}/{words[0]}/{rank}")
        return None

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, place: ProxyTarget
    ) -> Response | None:
        """The answer, unless the application has given it.

        Raises `AccessDenied` and `InvalidSessionToken`.
        """
        scheme = self._scheme(scope)
        target = _target(scope, place)
        path = unquote(target.partition(b"?")[0].decode("latin-1"))
        if not place.is_public:
            if path == SESSION_OPEN_PATH and scope["type"] == "http":
                return self._exchange(scope, place, scheme)
            self._check(scope, place)
        job = await self._jobs.running_job(place.job_id)
        if job is None or not 0 <= place.rank < job.specification.replicas:
            raise AccessDenied(GONE, "The job does not run any more.")
        application, _ = resolved(job)
        if application.web is None:
            raise AccessDenied(GONE, "The job's application has no web pages.")
        if not path:  # relative links of the first page need the slash
            return RedirectResponse(f"{place.prefix}/", 307)
        try:
            endpoint = await self._reach(place.job_id, place.rank, application.web.port)
        except NetworkNotFound as error:
            raise AccessDenied(GONE, str(error)) from error
        forward = proxy_http if scope["type"] == "http" else proxy_websocket
        with job_log_context(place.job_id), self._figures.session(SessionType.WEB):
            await forward(scope, receive, send, place, target, endpoint, scheme)
        return None

    def _exchange(self, scope: Scope, place: ProxyTarget, scheme: str) -> Response:
        query = {
            name: values[0]
            for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()
        }
        if scope["method"] != "GET":
            raise AccessDenied(FORBIDDEN, "A session is opened by GET.")
        token, verifier = query.get("token"), query.get("verifier")
        _same(self._tokens.check(token, SessionType.WEB, verifier), place)
        session = self._tokens.redeem(token, SessionType.WEB, verifier)
        with job_log_context(session.job_id):
            log.info(
                "The web application of rank %s of job %s was opened.", session.rank, session.job_id
            )
        cookie: SimpleCookie = SimpleCookie({COOKIE: self._cookies.issue(session, COOKIE_LIFETIME)})
        cookie[COOKIE] |= {
            "path": f"{place.prefix}/",
            "httponly": True,
            "samesite": "Lax",
            "max-age": COOKIE_LIFETIME,
        }
        cookie[COOKIE]["secure"] = scheme == "https"
        headers = {
            "set-cookie": cookie[COOKIE].OutputString(),
            "cache-control": "no-store",
            "referrer-policy": "no-referrer",
        }
        return RedirectResponse(f"{place.prefix}/", 303, headers)

    def _check(self, scope: Scope, place: ProxyTarget) -> None:
        """The cookie, and that no page of another host sends it.

        Raises `AccessDenied` and `InvalidSessionToken`.
        """
        _same(self._cookies.check(cookie_of(scope), SessionType.WEB), place)
        origin = header(scope, b"origin")
        is_harmless = scope["type"] == "http" and scope["method"] in SAFE_METHODS
        if (
            origin
            and not is_harmless
            and urlsplit(origin).netloc.lower() != header(scope, b"host").lower()
        ):
            raise AccessDenied(FORBIDDEN, f"A page of {origin} may not speak to this application.")

    def _scheme(self, scope: Scope) -> str:
        """What browsers use: a proxy before this server may have taken the encryption off."""
        if self._public_url is not None:
            return urlsplit(self._public_url).scheme
        return {"ws": "http", "wss": "https"}.get(scope["scheme"], str(scope["scheme"]))


def _same(session: Session, place: ProxyTarget) -> None:
    if (session.job_id, session.rank) != (place.job_id, place.rank):
        raise AccessDenied(FORBIDDEN, "The session is for another job or rank.")


def _rank(text: str) -> int:
    return int(text) if RANK.fullmatch(text) else NO_RANK


def _target(scope: Scope, place: ProxyTarget) -> bytes:
    """Path and query for the application, as the browser wrote them; the path is empty if its slash
    is missing.

    Raises `AccessDenied` for a prefix that is written in another way than ours.
    """
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    path = raw.partition(b"?")[0]
    prefix = place.prefix.encode()
    if not path.startswith(prefix) or path[len(prefix) : len(prefix) + 1] not in {b"", b"/"}:
        raise AccessDenied(GONE, "There is no such address.")
    path = path[len(prefix) :]
    query: bytes = scope["query_string"]
    return path + b"?" + query if query else path


async def _answer(answer: Response, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await answer(scope, receive, send)
        return
    await receive()  # the request for the connection
    status = answer.status_code
    await send(
        {"type": "websocket.http.response.start", "status": status, "headers": answer.raw_headers}
    )
    await send({"type": "websocket.http.response.body", "body": answer.body})
