"""The messages of WebSockets, which may be anything."""

from __future__ import annotations

from fastapi import WebSocket, WebSocketDisconnect

MAXIMUM_REASON = 123
"""Bytes that a WebSocket's closing frame has room for (RFC 6455)."""


async def received_text(socket: WebSocket) -> str:
    """The next message; empty for a binary one, which is no JSON either.

    Raises `WebSocketDisconnect`.
    """
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"], message.get("reason"))
    return message.get("text") or ""


def truncate_close_reason(text: str) -> str:
    """As much of the text as a closing frame can hold."""
    return text.encode()[:MAXIMUM_REASON].decode(errors="ignore")
