"""What a proxy changes in the headers that pass through it: nothing of the provider's own reaches
an application.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from starlette.types import Scope

Headers = list[tuple[bytes, bytes]]

COOKIE = "ucloud-session"
"""The cookie that a browser has for a web session; applications neither see it nor set it."""
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""For one connection alone (RFC 9110, 7.6.1), with those that `Connection` names."""
FORWARDED_HEADERS = frozenset(
    {b"forwarded", b"x-forwarded-host", b"x-forwarded-prefix", b"x-forwarded-proto", b"x-real-ip"}
)
"""Said anew, whatever the client says."""


@dataclass(frozen=True)
class ProxyTarget:
    """The web application of a replica, and how browsers come to it.

    `prefix` is what its paths begin with, empty when it has a host name of its own; `is_public`
    when a public link leads there, which lets everybody in.
    """

    job_id: str
    rank: int
    prefix: str = ""
    is_public: bool = False


def header(scope: Scope, name: bytes) -> str:
    """A header of a request; empty if it is missing."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def host_name(host: str) -> str:
    """The name in a `Host` header, in lower case and without its port."""
    return re.sub(r":\d*$", "", host).rstrip(".").lower()


def cookie_of(scope: Scope) -> str | None:
    """The value of our cookie."""
    for part in "; ".join(_values(scope["headers"], b"cookie")).split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return None


def request_headers(
    scope: Scope, place: ProxyTarget, scheme: str, left_out: Iterable[bytes] = ()
) -> Headers:
    """The headers of a request as the application gets them.

    The `Host` is the one that the browser used.
    """
    dropped = (
        _hop_by_hop(scope["headers"])
        | FORWARDED_HEADERS
        | {b"expect", b"cookie", b"x-forwarded-for", *left_out}
    )
    headers = [(name, value) for name, value in scope["headers"] if name not in dropped]
    cookies = [part.strip() for part in "; ".join(_values(scope["headers"], b"cookie")).split(";")]
    if kept := "; ".join(part for part in cookies if part and part.partition("=")[0] != COOKIE):
        headers.append((b"cookie", kept.encode("latin-1")))
    headers += [(b"x-forwarded-host", header(scope, b"host").encode("latin-1"))]
    headers += [(b"x-forwarded-proto", scheme.encode())]
    if place.prefix:
        headers.append((b"x-forwarded-prefix", place.prefix.encode()))
    addresses = [
        one.strip()
        for value in _values(scope["headers"], b"x-forwarded-for")
        for one in value.split(",")
    ]
    addresses += [
        one for one in _client(scope) if addresses[-1:] != [one]
    ]  # the server may have taken it from there
    if addresses:
        headers.append((b"x-forwarded-for", ", ".join(addresses).encode("latin-1")))
    return headers


def response_headers(headers: Sequence[tuple[bytes, bytes]], place: ProxyTarget) -> Headers:
    """The headers of an answer as the browser gets them: redirects and cookies stay inside the
    place.
    """
    lowered = [(name.lower(), value) for name, value in headers]
    dropped = _hop_by_hop(lowered) | {b"date", b"server"}
    passed: Headers = []
    for name, value in lowered:
        if name in dropped:
            continue
        if name == b"location":
            value = _inside(value, place)
        elif name == b"set-cookie":
            if value.partition(b"=")[0].strip() == COOKIE.encode():
                continue
            value = _kept_cookie(value, place)
        passed.append((name, value))
    return passed


def _inside(location: bytes, place: ProxyTarget) -> bytes:
    """A redirect to an absolute path, below the prefix that the application may not know of."""
    prefix = place.prefix.encode()
    is_absolute = location.startswith(b"/") and not location.startswith(b"//")
    return (
        prefix + location
        if prefix and is_absolute and not location.startswith(prefix + b"/")
        else location
    )


def _kept_cookie(cookie: bytes, place: ProxyTarget) -> bytes:
    """A cookie for this place alone: not for other hosts, and not for other paths of a host that is
    shared.
    """
    prefix = place.prefix.encode()
    kept = []
    has_path = False
    for number, part in enumerate(cookie.split(b";")):
        name, _, value = part.strip().partition(b"=")
        if number and name.lower() == b"domain":
            continue
        if number and prefix and name.lower() == b"path":
            has_path = True
            path = (
                value
                if value == prefix or value.startswith(prefix + b"/")
                else prefix + b"/" + value.lstrip(b"/")
            )
            part = b"Path=" + path
        kept.append(part.strip())
    if prefix and not has_path:
        kept.append(b"Path=" + prefix + b"/")
    return b"; ".join(kept)


def _hop_by_hop(headers: Sequence[tuple[bytes, bytes]]) -> frozenset[bytes]:
    named = {
        word.strip().lower().encode()
        for value in _values(headers, b"connection")
        for word in value.split(",")
    }
    return HOP_BY_HOP | named


def _values(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key == name]


def _client(scope: Scope) -> list[str]:
    address = (scope.get("client") or ("",))[0]
    try:
        return [str(ipaddress.ip_address(address))]
    except ValueError:
        return []
