"""WebSockets that are passed on to the application of a replica, message by message."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Origin, Subprotocol

from ucloud_orchestrator.provider.network.endpoint import Endpoint, connect_endpoint
from ucloud_orchestrator.provider.sessions.proxy_headers import ProxyTarget, header, request_headers

log = logging.getLogger(__name__)

MAXIMUM_MESSAGE = 16 * 1024 * 1024
"""Bytes; the server takes no larger ones from browsers either."""
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
"""Headers that belong to the handshake with the browser; the one with the application has its own.
"""
BAD_GATEWAY, UNAVAILABLE = 502, 503


class _Direct(connect):
    """A connection to the application and to nothing else, wherever it would send us."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Follow none."""
        return exc


async def proxy_websocket(
    scope: Scope,
    receive: Receive,
    send: Send,
    place: ProxyTarget,
    target: bytes,
    endpoint: Endpoint,
    scheme: str,
) -> None:
    """Open the same WebSocket at the application, and pass messages on both ways until one side
    closes.
    """
    browser = WebSocket(scope, receive, send)
    headers = request_headers(scope, place, scheme, left_out=HANDSHAKE)
    origin = header(scope, b"origin")
    try:
        application = await _Direct(
            f"ws://{header(scope, b'host') or 'application'}{target.decode('latin-1')}",
            sock=await connect_endpoint(endpoint),
            subprotocols=[Subprotocol(name) for name in scope.get("subprotocols", ())] or None,
            additional_headers=[
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in headers
            ],
            origin=Origin(origin) if origin else None,
            user_agent_header=None,
            compression=None,
            max_size=MAXIMUM_MESSAGE,
            ping_interval=None,
            proxy=None,
        )
    except InvalidStatus as error:
        status = error.response.status_code
        answer = Response(
            bytes(error.response.body or b""), status if status >= 400 else BAD_GATEWAY
        )
        await browser.send_denial_response(answer)
        return
    except (OSError, WebSocketException, ValueError) as error:
        log.info(
            "A WebSocket of job %s was not opened: %s", place.job_id, error or type(error).__name__
        )
        await browser.send_denial_response(
            JSONResponse({"why": "The application does not answer."}, UNAVAILABLE)
        )
        return
    async with application:
        await browser.accept(application.subprotocol)
        tasks = [
            asyncio.create_task(_up(browser, application)),
            asyncio.create_task(_down(browser, application)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


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
    with contextlib.suppress(
        WebSocketDisconnect, RuntimeError
    ):  # the browser may leave at any moment
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
    """A code that may be sent; some only tell of a connection without one."""
    if code is None or code in {1005, 1015}:
        return 1000
    return 1011 if code == 1006 else code
