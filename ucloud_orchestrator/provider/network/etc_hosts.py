"""The `/etc/hosts` and `/etc/resolv.conf` of a job."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path


def machine_lines() -> list[str]:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return Path("/etc/hosts").read_text().splitlines()
    return []


def render_hosts(lines: Sequence[str], own: str | None, peers: Mapping[str, str]) -> str:
    """Render a job's `/etc/hosts`: `localhost`, the peers by host name, the machine's lines.

    `own` is the job's address in a network of its own, to which this machine's name then resolves.
    Host names are compared without case.
    """
    entries = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    names = {"localhost"}
    for name, address in peers.items():
        if name.lower() not in names:
            entries.append(f"{address} {name}")
            names.add(name.lower())
    if own is not None and socket.gethostname().lower() not in names:
        entries.append(f"{own} {socket.gethostname()}")
        names.add(socket.gethostname().lower())
    for line in lines:
        address, *aliases = line.partition("#")[0].split() or [""]
        kept = [name for name in aliases if name.lower() not in names]
        if kept and not (own is not None and _is_loopback(address)):
            entries.append(" ".join([address, *kept]))
    return "\n".join(entries) + "\n"


def render_resolv_conf(name_server: str) -> str:
    """Render a job's `/etc/resolv.conf`: the machine's, with another name server."""
    lines: list[str] = []
    with contextlib.suppress(OSError, UnicodeDecodeError):
        lines = Path("/etc/resolv.conf").read_text().splitlines()
    kept = [
        line
        for line in lines
        if line.split(maxsplit=1)[:1] in (["search"], ["domain"], ["options"])
    ]
    return "\n".join([f"nameserver {name_server}", *kept]) + "\n"


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return True
