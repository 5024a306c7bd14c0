"""Where a port of a replica can be reached from the provider's own process."""

from __future__ import annotations

import asyncio
import socket as sockets
from dataclasses import dataclass
from pathlib import Path

DIAL_TIMEOUT = 5.0
"""Seconds; the other side is on this machine or close to it."""


@dataclass(frozen=True)
class Endpoint:
    """An address and port, or a Unix socket in their place when the replica's network is its
    own.
    """

    host: str = ""
    port: int = 0
    socket: Path | None = None


async def connect_endpoint(endpoint: Endpoint) -> sockets.socket:
    """A connected socket, which does not block.

    Raises `OSError` (also `TimeoutError`) if nothing answers.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(DIAL_TIMEOUT):
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
