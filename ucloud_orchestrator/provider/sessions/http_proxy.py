"""HTTP requests that are forwarded to a replica's application; bodies are streamed both ways."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import httpx
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from ucloud_orchestrator.provider.network.endpoint import CONNECT_TIMEOUT
from ucloud_orchestrator.provider.sessions.proxy_headers import (
    ProxyRequest,
    request_headers,
    response_headers,
)
from ucloud_orchestrator.provider.sessions.race import race

log = logging.getLogger(__name__)

UNAVAILABLE = 503
RETRY_SECONDS = 2
"""Seconds after which a browser asks again for a page of an application that does not answer."""


class _ClientGone(Exception):
    """The browser has left before its request was complete."""


async def proxy_http(request: ProxyRequest, receive: Receive, send: Send) -> None:
    """Forward a request and its response, until one of them ends or the browser leaves."""
    browser = _Browser(receive)
    answering, _ = await race(_answer(request, browser, send), browser.wait_until_gone())
    error = None if answering.cancelled() else answering.exception()
    if error is not None and not isinstance(error, _ClientGone):
        raise error


async def _answer(request: ProxyRequest, browser: _Browser, send: Send) -> None:
    endpoint = request.endpoint
    uds = None if endpoint.socket is None else str(endpoint.socket)
    async with httpx.AsyncHTTPTransport(uds=uds) as transport:
        try:
            response = await transport.handle_async_request(_outgoing(request, browser))
        except (httpx.TransportError, OSError) as error:
            _log(request, "The application of job %s did not answer: %s", error)
            await _respond_unavailable(request.scope, browser.receive, send)
            return
        try:
            await _stream(response, request, send)
        except (httpx.TransportError, OSError) as error:
            # Without an end the server closes the connection: the response is not complete.
            _log(request, "A response of job %s broke off: %s", error)
            return
        finally:
            await response.aclose()
    await send({"type": "http.response.body", "body": b""})


def _outgoing(request: ProxyRequest, browser: _Browser) -> httpx.Request:
    scope, endpoint = request.scope, request.endpoint
    has_body = any(
        name in {b"content-length", b"transfer-encoding"} for name, _ in scope["headers"]
    )
    if not has_body:
        browser.is_read.set()
    host = "application" if endpoint.socket is not None else f"{endpoint.host}:{endpoint.port}"
    return httpx.Request(
        scope["method"],
        f"http://{host}/",
        headers=request_headers(request),
        content=browser.body() if has_body else None,
        # Only the connection has a timeout: an application may compute or stream for hours.
        extensions={"target": request.raw_target, "timeout": {"connect": CONNECT_TIMEOUT}},
    )


async def _stream(response: httpx.Response, request: ProxyRequest, send: Send) -> None:
    headers = response_headers(response.headers.raw, request.target)
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    assert isinstance(response.stream, httpx.AsyncByteStream)
    async for chunk in response.stream:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _respond_unavailable(scope: Scope, receive: Receive, send: Send) -> None:
    headers = {"retry-after": str(RETRY_SECONDS)}
    if scope["method"] == "GET":
        headers["refresh"] = str(RETRY_SECONDS)
    response = JSONResponse(
        {"why": "The application does not answer yet; please wait."}, UNAVAILABLE, headers
    )
    await response(scope, receive, send)


def _log(request: ProxyRequest, text: str, error: Exception) -> None:
    log.info(text, request.target.job_id, error or type(error).__name__)


class _Browser:
    """The messages of the browser: the chunks of its body, then its disconnection."""

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self.is_read = asyncio.Event()

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the chunks of the body. Raises `_ClientGone`."""
        more = True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise _ClientGone
            more = message.get("more_body", False)
            yield message.get("body", b"")
        self.is_read.set()

    async def wait_until_gone(self) -> None:
        """Return when the browser has left; waits until its body is read."""
        await self.is_read.wait()
        while (await self.receive())["type"] != "http.disconnect":
            pass
