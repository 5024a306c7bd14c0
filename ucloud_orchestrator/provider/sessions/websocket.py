"""Messages and denials of WebSockets."""

from __future__ import annotations

from fastapi import WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse

from ucloud_orchestrator.models.session import SessionType
from ucloud_orchestrator.provider.auth.session_tokens import Session, SessionTokens
from ucloud_orchestrator.provider.errors import InvalidSessionToken

MAXIMUM_REASON = 123
"""Bytes of the reason in a close frame (RFC 6455, 5.5)."""
UNAUTHENTICATED, FORBIDDEN = 401, 403


async def received_text(socket: WebSocket) -> str:
    """Return the next message; empty for a binary one. Raises `WebSocketDisconnect`."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"], message.get("reason"))
    return message.get("text") or ""


def truncate_close_reason(text: str) -> str:
    return text.encode()[:MAXIMUM_REASON].decode(errors="ignore")


async def redeem_token(
    socket: WebSocket, tokens: SessionTokens, session_type: SessionType
) -> Session | None:
    """Use up the socket's token, and return its session; None once the socket is denied."""
    query = socket.query_params
    try:
        return tokens.redeem(query.get("token"), session_type, query.get("verifier"))
    except InvalidSessionToken as error:
        await socket.send_denial_response(invalid_token(error))
        return None


async def deny(socket: WebSocket, status: int, why: str) -> None:
    await socket.send_denial_response(JSONResponse({"why": why}, status))


def invalid_token(error: InvalidSessionToken) -> JSONResponse:
    return JSONResponse({"why": str(error)}, FORBIDDEN if error.is_known else UNAUTHENTICATED)
