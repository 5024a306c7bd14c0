"""Web applications of replicas in the browser: their addresses, and access to them.

An application has the host name `<job>-<rank>.<web domain>`, or a path of the provider if that has
no web domain. There a token is exchanged, once, for a cookie that opens only that replica. With the
domain of a public link that is bound to a running job, the application is open to everyone.
"""

from __future__ import annotations

import logging
import re
from http.cookies import SimpleCookie
from urllib.parse import parse_qs, unquote, urlsplit

from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ucloud_orchestrator.models.session import SessionType
from ucloud_orchestrator.process.logging import job_log_context
from ucloud_orchestrator.provider.auth.session_tokens import Session, SessionTokens
from ucloud_orchestrator.provider.errors import AccessDenied, InvalidSessionToken, NetworkNotFound
from ucloud_orchestrator.provider.jobs.preparation import resolved
from ucloud_orchestrator.provider.jobs.reconciler import Reconciler
from ucloud_orchestrator.provider.sessions.http_proxy import proxy_http
from ucloud_orchestrator.provider.sessions.proxy_headers import (
    COOKIE,
    ProxyRequest,
    ProxyTarget,
    cookie_of,
    header,
    host_name,
)
from ucloud_orchestrator.provider.sessions.websocket import invalid_token
from ucloud_orchestrator.provider.sessions.websocket_proxy import proxy_websocket

log = logging.getLogger(__name__)

SESSION_OPEN_PATH = "/.ucloud/open"
"""The path below a target at which a token is exchanged for a cookie; it is not forwarded."""
COOKIE_LIFETIME = 24 * 3600
"""Seconds until a browser needs a new session."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
HOST_LABEL = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""`<job>-<rank>` as a part of a host name; jobs with other ids have a path."""
RANK = re.compile(r"[0-9]{1,6}")
NO_RANK = -1
"""The rank of an address without one; no token is for it."""
FORBIDDEN, NOT_FOUND = 403, 404


class WebSessions:
    """The addresses of web applications; `middleware` serves them."""

    def __init__(
        self,
        path: str,
        public_url: str | None,
        web_domain: str | None,
        tokens: SessionTokens,
        cookies: SessionTokens,
        reconciler: Reconciler,
    ) -> None:
        self._path = path
        self._public_url = public_url
        self._web_domain = web_domain.lower() if web_domain else None
        self._tokens = tokens
        self._cookies = cookies
        self._reconciler = reconciler

    def address(self, job_id: str, rank: int, base_url: str) -> str:
        """Return the address at which a browser exchanges its token.

        `base_url` is this provider's address for clients.
        """
        label = f"{job_id}-{rank}"
        if self._web_domain and HOST_LABEL.fullmatch(label):
            host = f"{label}.{self._web_domain}"
            return f"{urlsplit(base_url).scheme}://{host}{SESSION_OPEN_PATH}"
        return f"{base_url.rstrip('/')}{self._path}/{job_id}/{rank}{SESSION_OPEN_PATH}"

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """Return a server that serves applications, and passes other requests to `app`."""

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            target = self._target(scope) if scope["type"] in {"http", "websocket"} else None
            if target is None:
                await app(scope, receive, send)
                return
            try:
                response = await self._serve(scope, receive, send, target)
            except AccessDenied as error:
                response = JSONResponse({"why": str(error)}, error.status)
            except InvalidSessionToken as error:
                response = invalid_token(error)
            if response is not None:
                await _respond(response, scope, receive, send)

        return serve

    def _target(self, scope: Scope) -> ProxyTarget | None:
        """Return the application that a request is for; None if it is for the provider."""
        host = host_name(header(scope, b"host"))
        if (job_id := self._reconciler.job_at(host)) is not None:
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
        self, scope: Scope, receive: Receive, send: Send, target: ProxyTarget
    ) -> Response | None:
        """Forward a request, or return the response if it is not forwarded.

        Raises `AccessDenied` and `InvalidSessionToken`.
        """
        scheme = self._scheme(scope)
        raw_target = _request_target(scope, target)
        path = unquote(raw_target.partition(b"?")[0].decode("latin-1"))
        if not target.is_public:
            if path == SESSION_OPEN_PATH and scope["type"] == "http":
                return self._exchange(scope, target, scheme)
            self._check(scope, target)
        port = await self._port(target)
        if not path:  # relative links of the first page need the slash
            return RedirectResponse(f"{target.prefix}/", 307)
        try:
            networks = self._reconciler.networks
            endpoint = await networks.endpoint(target.job_id, target.rank, port)
        except NetworkNotFound as error:
            raise AccessDenied(NOT_FOUND, str(error)) from error
        forward = proxy_http if scope["type"] == "http" else proxy_websocket
        request = ProxyRequest(scope, target, raw_target, endpoint, scheme)
        with (
            job_log_context(target.job_id),
            self._reconciler.metrics.session(SessionType.WEB),
        ):
            await forward(request, receive, send)
        return None

    async def _port(self, target: ProxyTarget) -> int:
        """Return the port of a running web application. Raises `AccessDenied`."""
        job = await self._reconciler.running_job(target.job_id)
        if job is None or not 0 <= target.rank < job.specification.replicas:
            raise AccessDenied(NOT_FOUND, "The job does not run any more.")
        application, _ = resolved(job)
        if application.web is None:
            raise AccessDenied(NOT_FOUND, "The job's application has no web pages.")
        return application.web.port

    def _exchange(self, scope: Scope, target: ProxyTarget, scheme: str) -> Response:
        query = {
            name: values[0]
            for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()
        }
        if scope["method"] != "GET":
            raise AccessDenied(FORBIDDEN, "A session is opened by GET.")
        token, verifier = query.get("token"), query.get("verifier")
        _check_same(self._tokens.check(token, SessionType.WEB, verifier), target)
        session = self._tokens.redeem(token, SessionType.WEB, verifier)
        with job_log_context(session.job_id):
            log.info(
                "The web application of rank %s of job %s was opened.", session.rank, session.job_id
            )
        cookie: SimpleCookie = SimpleCookie({COOKIE: self._cookies.issue(session, COOKIE_LIFETIME)})
        cookie[COOKIE] |= {
            "path": f"{target.prefix}/",
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
        return RedirectResponse(f"{target.prefix}/", 303, headers)

    def _check(self, scope: Scope, target: ProxyTarget) -> None:
        """Check the cookie, and that no page of another host sends it.

        Raises `AccessDenied` and `InvalidSessionToken`.
        """
        _check_same(self._cookies.check(cookie_of(scope), SessionType.WEB), target)
        origin = header(scope, b"origin")
        is_harmless = scope["type"] == "http" and scope["method"] in SAFE_METHODS
        if (
            origin
            and not is_harmless
            and urlsplit(origin).netloc.lower() != header(scope, b"host").lower()
        ):
            raise AccessDenied(FORBIDDEN, f"A page of {origin} may not speak to this application.")

    def _scheme(self, scope: Scope) -> str:
        """Return the scheme of the browser: a proxy before this server may terminate TLS."""
        if self._public_url is not None:
            return urlsplit(self._public_url).scheme
        return {"ws": "http", "wss": "https"}.get(scope["scheme"], str(scope["scheme"]))


def _check_same(session: Session, target: ProxyTarget) -> None:
    if (session.job_id, session.rank) != (target.job_id, target.rank):
        raise AccessDenied(FORBIDDEN, "The session is for another job or rank.")


def _rank(text: str) -> int:
    return int(text) if RANK.fullmatch(text) else NO_RANK


def _request_target(scope: Scope, target: ProxyTarget) -> bytes:
    """Return path and query for the application, as the browser sent them.

    The path is empty if the slash after the prefix is missing. Raises `AccessDenied` for a prefix
    in another encoding.
    """
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    path = raw.partition(b"?")[0]
    prefix = target.prefix.encode()
    if not path.startswith(prefix) or path[len(prefix) : len(prefix) + 1] not in {b"", b"/"}:
        raise AccessDenied(NOT_FOUND, "There is no such address.")
    path = path[len(prefix) :]
    query: bytes = scope["query_string"]
    return path + b"?" + query if query else path


async def _respond(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await response(scope, receive, send)
        return
    await receive()  # the handshake
    status = response.status_code
    await send(
        {"type": "websocket.http.response.start", "status": status, "headers": response.raw_headers}
    )
    await send({"type": "websocket.http.response.body", "body": response.body})
