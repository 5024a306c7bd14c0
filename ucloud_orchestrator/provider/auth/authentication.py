"""Authenticate requests of the orchestrator: a JWT that is signed with its key."""

from __future__ import annotations

from pathlib import Path

import jwt
from jwt.algorithms import RSAAlgorithm

from ucloud_orchestrator.provider.errors import NotAuthenticated

ALGORITHM = "RS256"
SUBJECT = "_UCloud"
ROLE = "SERVICE"
LEEWAY = 30
"""Seconds that two clocks may differ."""
UNREADABLE = (jwt.InvalidTokenError, RecursionError, OverflowError)
"""PyJWT's errors for invalid tokens.

It raises `RecursionError` for a deeply nested header, which it reads before the signature, and
`OverflowError` for large numbers.
"""


def read_public_key(file: Path) -> str:
    """Read the orchestrator's public key (PEM). Raises `OSError` with advice."""
    try:
        text = file.read_text()
        RSAAlgorithm(RSAAlgorithm.SHA256).prepare_key(text)
    except (jwt.InvalidKeyError, ValueError) as error:
        raise OSError(
            f"{file} holds no public RSA key (PEM), by which the orchestrator would be known."
        ) from error
    except OSError as error:
        why = f"The orchestrator's public key {file} cannot be read ({error.strerror})"
        advice = (
            "'ucloud-orchestrator setup' makes it, and UCLOUD_PROVIDER_PUBLIC_KEY_FILE names it."
        )
        raise OSError(f"{why}: {advice}") from error
    return text


class Authentication:
    """Verify tokens with one public key (PEM) and issuer."""

    def __init__(self, public_key: str, issuer: str) -> None:
        self._public_key = public_key
        self._issuer = issuer

    def check(self, authorization: str | None) -> None:
        """Check the header `Authorization`. Raises `NotAuthenticated`."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise NotAuthenticated("The request has no bearer token.")
        try:
            claims = jwt.decode(
                token,
                self._public_key,
                algorithms=[ALGORITHM],
                issuer=self._issuer,
                leeway=LEEWAY,
                options={"require": ["iat", "exp", "iss", "sub"], "verify_aud": False},
            )
        except UNREADABLE as error:
            raise NotAuthenticated(f"The token is not valid: {error}.") from error
        if claims["sub"] != SUBJECT or claims.get("role") != ROLE:
            raise NotAuthenticated("The token is not the orchestrator's.")
