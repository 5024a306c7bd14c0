"""WebSockets that are forwarded to a replica's application, message by message."""

from __future__ import annotations

import contextlib
import logging

from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Origin, Subprotocol

from ucloud_orchestrator.provider.network.endpoint import connect_endpoint
from ucloud_orchestrator.provider.sessions.proxy_headers import (
    ProxyRequest,
    header,
    request_headers,
)
from ucloud_orchestrator.provider.sessions.race import race
from ucloud_orchestrator.provider.sessions.websocket import deny

log = logging.getLogger(__name__)

MAXIMUM_MESSAGE = 16 * 1024 * 1024
"""Bytes; also the server's limit for browsers."""
HANDSHAKE = frozenset(
    {
        b"host",
        b"origin",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
    }
)
"""Headers of the browser's handshake; the one with the application has its own."""
BAD_GATEWAY, UNAVAILABLE = 502, 503


class _ConnectWithoutRedirects(connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


async def proxy_websocket(request: ProxyRequest, receive: Receive, send: Send) -> None:
    """Open the same WebSocket at the application, and forward messages until one side closes."""
    browser = WebSocket(request.scope, receive, send)
    try:
        application = await _connect(request)
    except InvalidStatus as error:
        status = error.response.status_code
        body = bytes(error.response.body or b"")
        response = Response(body, status if status >= 400 else BAD_GATEWAY)
        await browser.send_denial_response(response)
        return
    except (OSError, WebSocketException, ValueError) as error:
        reason = error or type(error).__name__
        log.info("A WebSocket of job %s was not opened: %s", request.target.job_id, reason)
        await deny(browser, UNAVAILABLE, "The application does not answer.")
        return
    async with application:
        await browser.accept(application.subprotocol)
        await race(_up(browser, application), _down(browser, application))


async def _connect(request: ProxyRequest) -> ClientConnection:
    """Raises `InvalidStatus` and other `WebSocketException`s, `OSError` and `ValueError`."""
    scope = request.scope
    origin = header(scope, b"origin")
    return await _ConnectWithoutRedirects(
        f"ws://{header(scope, b'host') or 'application'}{request.raw_target.decode('latin-1')}",
        sock=await connect_endpoint(request.endpoint),
        subprotocols=[Subprotocol(name) for name in scope.get("subprotocols", ())] or None,
        additional_headers=[
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in request_headers(request, HANDSHAKE)
        ],
        origin=Origin(origin) if origin else None,
        user_agent_header=None,
        compression=None,
        max_size=MAXIMUM_MESSAGE,
        ping_interval=None,
        proxy=None,
    )


async def _up(browser: WebSocket, application: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            message = await browser.receive()
            if message["type"] == "websocket.disconnect":
                await application.close(_code(message.get("code")))
                return
            text = message.get("text")
            await application.send(message["bytes"] if text is None else text)


async def _down(browser: WebSocket, application: ClientConnection) -> None:
    # The browser may leave at any moment.
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        try:
            async for message in application:
                if isinstance(message, str):
                    await browser.send_text(message)
                else:
                    await browser.send_bytes(message)
        except ConnectionClosed:
            pass
        await browser.close(_code(application.close_code), application.close_reason or None)


def _code(code: int | None) -> int:
    """Return a code that may be sent: 1005, 1006 and 1015 are for local use (RFC 6455, 7.4.1)."""
    if code is None or code in {1005, 1015}:
        return 1000
    return 1011 if code == 1006 else code
