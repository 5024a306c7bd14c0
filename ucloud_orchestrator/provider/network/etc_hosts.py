"""A job's own `/etc/hosts` and `/etc/resolv.conf`."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path


def machine_lines() -> list[str]:
    """What the machine's own `/etc/hosts` says."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return Path("/etc/hosts").read_text().splitlines()
    return []


def render_hosts(lines: Sequence[str], own: str | None, peers: Mapping[str, str]) -> str:
    """The text of a job's `/etc/hosts`: `localhost`, its peers by their host names, and the
    machine's lines.

    `own` is the job's address in a network of its own; this machine's name leads there then, and no
    longer to the machine. Host names do not tell capital letters from small ones.
    """
    entries = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    taken = {"localhost"}
    for name, address in peers.items():
        if name.lower() not in taken:
            entries.append(f"{address} {name}")
            taken.add(name.lower())
    if own is not None and socket.gethostname().lower() not in taken:
        entries.append(f"{own} {socket.gethostname()}")
        taken.add(socket.gethostname().lower())
    for line in lines:
        address, *names = line.partition("#")[0].split() or [""]
        kept = [name for name in names if name.lower() not in taken]
        if kept and not (own is not None and _is_loopback(address)):
            entries.append(" ".join([address, *kept]))
    return "\n".join(entries) + "\n"


def render_resolv_conf(name_server: str) -> str:
    """The text of a job's `/etc/resolv.conf`: the machine's, with another name server."""
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
