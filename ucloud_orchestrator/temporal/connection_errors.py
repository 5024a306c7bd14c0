"""Errors of the connection to Temporal: one sentence with the reason and the remedy."""

from __future__ import annotations

import re

_REASONS = (
    (
        r"UnknownIssuer|CaUsedAsEndEntity",
        "no authority trusted here has signed its certificate",
        "CA",
    ),
    (r"NotValidForName", "its certificate is for other names", "NAME"),
    (
        r"certificate expired|CertExpired|InvalidCertificate\(Expired",
        "its certificate has expired",
        "RENEW",
    ),
    (r"InvalidContentType|CorruptMessage", "it does not speak TLS", "PLAIN"),
    (r"CertificateRequired|HandshakeFailure", "it asks for a client certificate", "CLIENT"),
    (
        r"UnknownCA|BadCertificate|CertificateUnknown|DecryptError",
        "it does not trust the client certificate",
        "CLIENT",
    ),
    (
        r"NoCertificatesPresented|KeysMay ?Be|InconsistentKeys",
        "the client certificate is not usable",
        "CLIENT",
    ),
    (r"401 Unauthorized|Unauthenticated", "it does not accept the API key", "KEY"),
    (r"403 Forbidden|PermissionDenied", "it does not let this certificate or API key in", "KEY"),
    (r"400 Bad Request", "it rejects the request (400)", "CLIENT"),
    (
        r"FRAME_SIZE_ERROR|http2 error|connection closed|unexpected-eof|UnexpectedEof|"
        r"ConnectionReset|BrokenPipe",
        "it breaks the connection off",
        "BROKEN",
    ),
    (r"ConnectionRefused", "nothing listens there", "ADDRESS"),
    (r"dns error", "its host name is unknown", "ADDRESS"),
)
"""(pattern in the SDK's message, reason, key of the advice); the first match counts."""

_ADVICE = {
    "CA": "name the file of its authority in TEMPORAL_TLS_SERVER_CA_CERT_PATH",
    "NAME": "connect by a name that it has, or set TEMPORAL_TLS_SERVER_NAME to one",
    "RENEW": "have it renewed there",
    "PLAIN": "leave the TLS settings and the API key out, or correct TEMPORAL_ADDRESS",
    "CLIENT": "check TEMPORAL_TLS_CLIENT_CERT_PATH and TEMPORAL_TLS_CLIENT_KEY_PATH",
    "KEY": "check TEMPORAL_API_KEY and TEMPORAL_NAMESPACE",
    "BROKEN": "check TEMPORAL_ADDRESS, and whether it asks for TLS (TEMPORAL_TLS=true) or a "
    "client certificate (TEMPORAL_TLS_CLIENT_CERT_PATH)",
    "ADDRESS": "start it, or correct TEMPORAL_ADDRESS",
}


class ConnectionConfigError(ValueError):
    """The environment or the profile has an invalid setting. Not retryable."""


class TemporalUnreachable(ConnectionError):
    """No connection to Temporal. The text has the address, the reason and the advice."""

    def __init__(self, address: str, message: str) -> None:
        super().__init__(f"Temporal at {address} cannot be reached: {_explain(message)}.")


def _explain(message: str) -> str:
    """Translate the SDK's message into a reason with advice. An unknown message is shortened."""
    for pattern, reason, advice in _REASONS:
        if re.search(pattern, message):
            return f"{reason}; {_ADVICE[advice]}"
    return " ".join(message.removeprefix("Failed client connect: ").split())[:500].rstrip(".")
