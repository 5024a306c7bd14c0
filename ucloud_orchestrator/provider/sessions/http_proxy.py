"""HTTP requests that are passed on to a replica's application, and its answers; neither is ever
held as a whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import httpx
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from ucloud_orchestrator.provider.network.endpoint import CONNECT_TIMEOUT, Endpoint
from ucloud_orchestrator.provider.sessions.proxy_headers import (
    ProxyTarget,
    request_headers,
    response_headers,
)

log = logging.getLogger(__name__)

UNAVAILABLE = 503
RETRY_SECONDS = 2
"""After which a browser asks again for a page of an application that does not answer yet."""


class _ClientGone(Exception):
    """The browser has left before its request was complete."""


async def proxy_http(
    scope: Scope,
    receive: Receive,
    send: Send,
    place: ProxyTarget,
    target: bytes,
    endpoint: Endpoint,
    scheme: str,
) -> None:
    """Pass a request on, as one for `target` (path and query as they are on the wire), and its
    answer back.
    """
    incoming = _Incoming(receive)
    answering = asyncio.create_task(_answer(scope, incoming, send, place, target, endpoint, scheme))
    leaving = asyncio.create_task(incoming.gone())
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (answering, leaving):
            task.cancel()
        results = await asyncio.gather(answering, leaving, return_exceptions=True)
    if isinstance(results[0], Exception) and not isinstance(results[0], _ClientGone):
        raise results[0]


async def refuse_for_now(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell that the application does not answer; a browser asks again by itself."""
    headers = {"retry-after": str(RETRY_SECONDS)}
    if scope["method"] == "GET":
        headers["refresh"] = str(RETRY_SECONDS)
    answer = JSONResponse(
        {"why": "The application does not answer yet; please wait."}, UNAVAILABLE, headers
    )
    await answer(scope, receive, send)


async def _answer(
    scope: Scope,
    incoming: _Incoming,
    send: Send,
    place: ProxyTarget,
    target: bytes,
    endpoint: Endpoint,
    scheme: str,
) -> None:
    has_body = any(
        name in {b"content-length", b"transfer-encoding"} for name, _ in scope["headers"]
    )
    if not has_body:
        incoming.is_read.set()
    address = "application" if endpoint.socket is not None else f"{endpoint.host}:{endpoint.port}"
    request = httpx.Request(
        scope["method"],
        f"http://{address}/",
        headers=request_headers(scope, place, scheme),
        content=incoming.body() if has_body else None,
        # Only the way to the application has a time limit; it may think, or stream, for as long as
        # it likes.
        extensions={"target": target, "timeout": {"connect": CONNECT_TIMEOUT}},
    )
    uds = None if endpoint.socket is None else str(endpoint.socket)
    async with httpx.AsyncHTTPTransport(uds=uds) as transport:
        try:
            response = await transport.handle_async_request(request)
        except (httpx.TransportError, OSError) as error:
            log.info(
                "The application of job %s did not answer: %s",
                place.job_id,
                error or type(error).__name__,
            )
            await refuse_for_now(scope, incoming.receive, send)
            return
        try:
            headers = response_headers(response.headers.raw, place)
            await send(
                {"type": "http.response.start", "status": response.status_code, "headers": headers}
            )
            assert isinstance(response.stream, httpx.AsyncByteStream)
            async for piece in response.stream:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except (httpx.TransportError, OSError) as error:
            # Without an end the server closes the connection, so that nobody takes a part for the
            # whole.
            log.info(
                "An answer of job %s broke off: %s", place.job_id, error or type(error).__name__
            )
            return
        finally:
            await response.aclose()
    await send({"type": "http.response.body", "body": b""})


class _Incoming:
    """The request's body, and the news that the browser has left; both come by the same way."""

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self.is_read = asyncio.Event()

    async def body(self) -> AsyncIterator[bytes]:
        """The pieces, as they come. Raises `_ClientGone`."""
        more = True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise _ClientGone
            more = message.get("more_body", False)
            yield message.get("body", b"")
        self.is_read.set()

    async def gone(self) -> None:
        """Return when the browser has left."""
        await self.is_read.wait()
        while (await self.receive())["type"] != "http.disconnect":
            pass
