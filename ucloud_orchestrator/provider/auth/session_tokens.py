"""Session tokens: short-lived JWTs for one job, one rank and one type of session."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from ucloud_orchestrator.models.session import SessionType
from ucloud_orchestrator.provider.auth.authentication import UNREADABLE
from ucloud_orchestrator.provider.errors import InvalidSessionToken

ALGORITHM = "HS256"
AUDIENCE = "ucloud-session"
LIFETIME = 300
"""Seconds, unless the settings say otherwise."""


@dataclass(frozen=True)
class Session:
    job_id: str
    rank: int
    session_type: SessionType


class SessionTokens:
    """Issue and verify tokens with a secret in a file of mode 0600."""

    def __init__(self, secret_file: Path, lifetime: int = LIFETIME) -> None:
        self._secret = _secret(secret_file)
        self._lifetime = lifetime
        self._redeemed: dict[str, float] = {}

    def issue(
        self, session: Session, lifetime: int | None = None, challenge: str | None = None
    ) -> str:
        """Issue a token for `lifetime` seconds; with a challenge it also needs the verifier."""
        lifetime = self._lifetime if lifetime is None else lifetime
        claims = {
            "aud": AUDIENCE,
            "sub": session.job_id,
            "rank": session.rank,
            "type": session.session_type.value,
            "exp": int(time.time()) + lifetime,
            "jti": secrets.token_hex(16),
            "challenge": challenge,
        }
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM)

    def check(
        self, token: str | None, session_type: SessionType, verifier: str | None = None
    ) -> Session:
        """Return the session of a token of this type. Raises `InvalidSessionToken`."""
        return self._read(token, session_type, verifier)[0]

    def redeem(
        self, token: str | None, session_type: SessionType, verifier: str | None = None
    ) -> Session:
        """Check the token and use it up. Raises `InvalidSessionToken`.

        Used tokens are in memory only: after a restart an unexpired token works again.
        """
        session, claims = self._read(token, session_type, verifier)
        now = time.time()
        self._redeemed = {jti: expiry for jti, expiry in self._redeemed.items() if expiry > now}
        self._redeemed[claims["jti"]] = claims["exp"]
        return session

    def _read(
        self, token: str | None, session_type: SessionType, verifier: str | None
    ) -> tuple[Session, dict[str, Any]]:
        try:
            claims = jwt.decode(
                token or "",
                self._secret,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                options={"require": ["exp", "sub", "aud", "jti"]},
            )
            session = Session(claims["sub"], int(claims["rank"]), SessionType(claims["type"]))
        except (*UNREADABLE, KeyError, TypeError, ValueError) as error:
            raise InvalidSessionToken(
                "The session's token is not valid, or has expired."
            ) from error
        challenge = claims.get("challenge")
        proof = hashlib.sha256((verifier or "").encode(errors="replace")).hexdigest()
        expected = str(challenge).encode(errors="replace")
        if challenge is not None and not hmac.compare_digest(proof.encode(), expected):
            raise InvalidSessionToken(
                "The token opens nothing without its verifier, which only the client has."
            )
        if session.session_type is not session_type:
            raise InvalidSessionToken(
                f"The token is for {session.session_type}, not for {session_type}.", is_known=True
            )
        if claims["jti"] in self._redeemed:
            raise InvalidSessionToken("The session's token was used before; ask for a new session.")
        return session, claims


def _secret(file: Path) -> bytes:
    """Return the file's secret, and create it if it is missing; safe in concurrent processes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new_file = file.with_name(f"{file.name}.{os.getpid()}")
    if not file.exists():
        with os.fdopen(
            os.open(new_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
        ) as opened:
            opened.write(secrets.token_bytes(32))
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.link(new_file, file)
        new_file.unlink()
    return file.read_bytes()
