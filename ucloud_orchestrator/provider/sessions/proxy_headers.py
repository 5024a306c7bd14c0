"""Headers of proxied requests and responses: nothing of the provider's reaches an application."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from starlette.types import Scope

from ucloud_orchestrator.provider.network.endpoint import Endpoint

Headers = list[tuple[bytes, bytes]]

COOKIE = "ucloud-session"
"""The cookie of a web session; applications can neither read nor set it."""
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
"""Headers of one connection (RFC 9110, 7.6.1), besides those that `Connection` names."""
FORWARDED_HEADERS = frozenset(
    {b"forwarded", b"x-forwarded-host", b"x-forwarded-prefix", b"x-forwarded-proto", b"x-real-ip"}
)
"""Headers that the proxy replaces."""


@dataclass(frozen=True)
class ProxyTarget:
    """The web application of a replica as the target of a request.

    `prefix` begins its paths; it is empty if it has a host name of its own. `is_public` is true for
    a public link, which is open to everyone.
    """

    job_id: str
    rank: int
    prefix: str = ""
    is_public: bool = False


@dataclass(frozen=True)
class ProxyRequest:
    """A request to forward: `raw_target` is path and query on the wire."""

    scope: Scope
    target: ProxyTarget
    raw_target: bytes
    endpoint: Endpoint
    scheme: str


def header(scope: Scope, name: bytes) -> str:
    """Return a header of a request; empty if it is missing."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def host_name(host: str) -> str:
    """Return the name in a `Host` header, in lower case and without its port."""
    return re.sub(r":\d*$", "", host).rstrip(".").lower()


def cookie_of(scope: Scope) -> str | None:
    for part in "; ".join(_values(scope["headers"], b"cookie")).split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return None


def request_headers(request: ProxyRequest, dropped: Iterable[bytes] = ()) -> Headers:
    """Return the headers of a request for the application; `Host` is the browser's."""
    given = request.scope["headers"]
    replaced = FORWARDED_HEADERS | {b"expect", b"cookie", b"x-forwarded-for", *dropped}
    headers = [(name, value) for name, value in given if name not in _hop_by_hop(given) | replaced]
    cookies = [part.strip() for part in "; ".join(_values(given, b"cookie")).split(";")]
    if kept := "; ".join(part for part in cookies if part and part.partition("=")[0] != COOKIE):
        headers.append((b"cookie", kept.encode("latin-1")))
    headers.append((b"x-forwarded-host", header(request.scope, b"host").encode("latin-1")))
    headers.append((b"x-forwarded-proto", request.scheme.encode()))
    if request.target.prefix:
        headers.append((b"x-forwarded-prefix", request.target.prefix.encode()))
    if addresses := _client_addresses(request.scope):
        headers.append((b"x-forwarded-for", ", ".join(addresses).encode("latin-1")))
    return headers


def _client_addresses(scope: Scope) -> list[str]:
    """Return the addresses of `X-Forwarded-For` with that of the client."""
    addresses = [
        address.strip()
        for value in _values(scope["headers"], b"x-forwarded-for")
        for address in value.split(",")
    ]
    client = (scope.get("client") or ("",))[0]
    with contextlib.suppress(ValueError):
        address = str(ipaddress.ip_address(client))
        if addresses[-1:] != [address]:  # the server may have read it from this header
            addresses.append(address)
    return addresses


def response_headers(headers: Sequence[tuple[bytes, bytes]], target: ProxyTarget) -> Headers:
    """Return a response's headers for the browser; redirects and cookies stay in the target."""
    lowered = [(name.lower(), value) for name, value in headers]
    dropped = _hop_by_hop(lowered) | {b"date", b"server"}
    forwarded: Headers = []
    for name, value in lowered:
        if name in dropped:
            continue
        if name == b"location":
            value = _prefixed_location(value, target)
        elif name == b"set-cookie":
            if value.partition(b"=")[0].strip() == COOKIE.encode():
                continue
            value = _restricted_cookie(value, target)
        forwarded.append((name, value))
    return forwarded


def _prefixed_location(location: bytes, target: ProxyTarget) -> bytes:
    """Put an absolute path below the target's prefix, which the application may not know."""
    prefix = target.prefix.encode()
    is_absolute = location.startswith(b"/") and not location.startswith(b"//")
    if not prefix or not is_absolute or location.startswith(prefix + b"/"):
        return location
    return prefix + location


def _restricted_cookie(cookie: bytes, target: ProxyTarget) -> bytes:
    """Drop a cookie's domain, and limit its path to the target's prefix."""
    prefix = target.prefix.encode()
    pair, *attributes = (part.strip() for part in cookie.split(b";"))
    kept, path = [pair], b""
    for attribute in attributes:
        name, _, value = attribute.partition(b"=")
        if name.lower() == b"domain":
            continue
        if prefix and name.lower() == b"path":
            path = value
            continue
        kept.append(attribute)
    if prefix:
        is_inside = path == prefix or path.startswith(prefix + b"/")
        kept.append(b"Path=" + (path if is_inside else prefix + b"/" + path.lstrip(b"/")))
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
