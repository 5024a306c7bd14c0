"""Why there is no connection to Temporal, in one sentence that says what to do."""

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
    (r"400 Bad Request", "it refuses the request (400)", "CLIENT"),
    (
        r"FRAME_SIZE_ERROR|http2 error|connection "
        r"closed|unexpected-eof|UnexpectedEof|ConnectionReset|BrokenPipe",
        "it breaks the connection off",
        "BROKEN",
    ),
    (r"ConnectionRefused", "nothing listens there", "ADDRESS"),
    (r"dns error", "its host name is unknown", "ADDRESS"),
)
"""What the SDK's text holds, what that means, and which advice helps."""

_ADVICE = {
    "CA": "name the file of its authority in TEMPORAL_TLS_SERVER_CA_CERT_PATH",
    "NAME": "connect by a name that it has, or set TEMPORAL_TLS_SERVER_NAME to one",
    "RENEW": "have it renewed there",
    "PLAIN": "leave the TLS settings and the API key out, or correct TEMPORAL_ADDRESS",
    "CLIENT": "check TEMPORAL_TLS_CLIENT_CERT_PATH and TEMPORAL_TLS_CLIENT_KEY_PATH",
    "KEY": "check TEMPORAL_API_KEY and TEMPORAL_NAMESPACE",
    "BROKEN": "check TEMPORAL_ADDRESS, and whether it asks for TLS (TEMPORAL_TLS=true) or a "
    "client certificate "
    "(TEMPORAL_TLS_CLIENT_CERT_PATH)",
    "ADDRESS": "start it, or correct TEMPORAL_ADDRESS",
}


class ConnectionConfigError(ValueError):
    """What the environment or the profile says about the connection cannot be used; a repeat will
    not help.
    """


class TemporalUnreachable(ConnectionError):
    """Temporal did not take the connection; the text says where, why and what to do."""

    def __init__(self, address: str, said: str) -> None:
        super().__init__(f"Temporal at {address} cannot be reached: {explained(said)}.")


def explained(said: str) -> str:
    """The SDK's text about a connection that failed, as a reason with advice; as it is, if it is
    not known.
    """
    for pattern, meaning, advice in _REASONS:
        if re.search(pattern, said):
            return f"{meaning}; {_ADVICE[advice]}"
    return " ".join(said.removeprefix("Failed client connect: ").split())[:500].rstrip(".")
