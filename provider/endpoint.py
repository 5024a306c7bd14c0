"""Where a port of a replica can be reached from the provider's own process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Endpoint:
    """An address and port, or a Unix socket in their place when the replica's network is its own."""

    host: str = ""
    port: int = 0
    socket: Path | None = None
