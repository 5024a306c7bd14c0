"""Desktops over WebSockets: raw VNC between a browser and the VNC server of a replica."""

from __future__ import annotations

import asyncio
import contextlib

from fastapi import WebSocket, WebSocketDisconnect

from ucloud_orchestrator.provider.network.endpoint import Endpoint, connect_endpoint
from ucloud_orchestrator.provider.sessions.race import race

CHUNK_SIZE = 64 * 1024
SUBPROTOCOL = "binary"
"""The subprotocol of clients such as noVNC."""


async def serve_desktop(socket: WebSocket, endpoint: Endpoint) -> None:
    """Connect, accept the WebSocket, and forward bytes until one side closes. Raises `OSError`."""
    reader, writer = await asyncio.open_connection(sock=await connect_endpoint(endpoint))
    try:
        await socket.accept(
            SUBPROTOCOL if SUBPROTOCOL in socket.scope.get("subprotocols", ()) else None
        )
        await race(_down(socket, reader), _up(socket, writer))
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _down(socket: WebSocket, reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError, WebSocketDisconnect, RuntimeError):
        while chunk := await reader.read(CHUNK_SIZE):
            await socket.send_bytes(chunk)


async def _up(socket: WebSocket, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, WebSocketDisconnect, KeyError):  # a text message is not VNC
        while True:
            writer.write(await socket.receive_bytes())
            await writer.drain()
