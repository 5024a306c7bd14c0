"""Interactive sessions: what a user asks for, and where the provider says that it can be had.

The three kinds of UCloud's provider protocol, and `LOGS`, which is ours: the output of a job, read
from its provider with a token of the same kind.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlencode

from pydantic import Field, TypeAdapter

from ucloud_orchestrator.models.base import ApiModel
from ucloud_orchestrator.models.job import Job


class SessionType(StrEnum):
    """What a session is for."""

    SHELL = "SHELL"
    """A terminal in a replica."""
    WEB = "WEB"
    """The web application that a replica serves."""
    VNC = "VNC"
    """The desktop of a replica."""
    LOGS = "LOGS"
    """What all replicas write to standard output and error; also after the job has ended."""


Challenge = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""The SHA-256 of a secret that only the client has; the session is opened with that secret (RFC
7636, "PKCE").
"""


class OpenSessionRequest(ApiModel):
    """The argument of the update `open_session`."""

    session_type: SessionType
    rank: int = Field(default=0, ge=0)
    challenge: Challenge | None = None


class SessionItem(ApiModel):
    """The item of the provider's call `interactiveSession`. `challenge` is ours, not UCloud's."""

    job: Job
    rank: int = Field(default=0, ge=0)
    session_type: SessionType
    challenge: Challenge | None = None


class AnySession(ApiModel):
    """What all sessions have."""

    job_id: str
    rank: int = 0
    needs_verifier: bool = Field(default=False, exclude_if=lambda needs: not needs)
    """Ours: whether its addresses want the secret of the challenge as the query parameter
    `verifier` too, so that who reads this answer in a workflow's history can open nothing with it.
    """


class ShellSession(AnySession):
    """A terminal: `session_identifier` is the token with which the provider's shell WebSocket is
    opened.

    Ours, not UCloud's: `url`, the WebSocket's whole address with the token, so that nothing has to
    be put together, and `page`, a page of the provider that shows the terminal in a browser.
    """

    type: Literal["shell"] = "shell"
    session_identifier: str
    url: str | None = None
    page: str | None = None


class WebSession(AnySession):
    """An address to be opened in a browser; it carries the token."""

    type: Literal["web"] = "web"
    redirect_client_to: str


class VncSession(AnySession):
    """A desktop: the WebSocket that speaks VNC (as noVNC does), with its token, and VNC's own
    password.

    `page` is ours, not UCloud's: a page of the provider that shows the desktop in a browser.
    """

    type: Literal["vnc"] = "vnc"
    url: str
    password: str | None = None
    page: str | None = None


class LogsSession(AnySession):
    """The WebSocket of a job's output with its token; it sends `FollowMessage`s."""

    type: Literal["logs"] = "logs"
    url: str


OpenSession = Annotated[
    ShellSession | WebSession | VncSession | LogsSession, Field(discriminator="type")
]
"""What a provider answers to `interactiveSession`."""

OPEN_SESSION: TypeAdapter[OpenSession] = TypeAdapter(OpenSession)
"""Reads any of them."""


Session = TypeVar("Session", bound=AnySession)


def challenge_of(verifier: str) -> str:
    """Return the challenge with which a session is asked for."""
    return hashlib.sha256(verifier.encode()).hexdigest()


def with_verifier(session: Session, verifier: str) -> Session:
    """Return the session with the verifier in its addresses, if it needs one."""
    if not session.needs_verifier:
        return session
    addresses = {
        name: f"{value}{'&' if '?' in value else '?'}{urlencode({'verifier': verifier})}"
        for name in ("url", "redirect_client_to", "page")
        if isinstance(value := getattr(session, name, None), str)
    }
    return session.model_copy(update=addresses)
