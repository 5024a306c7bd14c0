"""The endpoint of a replica's port, as the provider's own process connects to it."""

from __future__ import annotations

import asyncio
import socket as sockets
from dataclasses import dataclass
from pathlib import Path

CONNECT_TIMEOUT = 5.0
"""Seconds; the peer is on this machine or close to it."""


@dataclass(frozen=True)
class Endpoint:
    """A host and port, or a Unix socket if the replica has a network of its own."""

    host: str = ""
    port: int = 0
    socket: Path | None = None


async def connect_endpoint(endpoint: Endpoint) -> sockets.socket:
    """Return a connected, non-blocking socket. Raises `OSError`, which `TimeoutError` is too."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(CONNECT_TIMEOUT):
        if endpoint.socket is not None:
            connected = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
            address: str | tuple[str, int] = str(endpoint.socket)
        else:
            connected = sockets.socket(
                sockets.AF_INET6 if ":" in endpoint.host else sockets.AF_INET
            )
            address = (endpoint.host, endpoint.port)
        connected.setblocking(False)
        try:
            await loop.sock_connect(connected, address)
        except BaseException:
            connected.close()
            raise
    return connected
