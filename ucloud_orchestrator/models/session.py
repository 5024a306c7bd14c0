"""Interactive sessions: requests, and the addresses that the provider returns for them.

Three types are of UCloud's provider protocol. `LOGS`, the output of a job, is ours.
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
    SHELL = "SHELL"
    """A terminal in a replica."""
    WEB = "WEB"
    """The web application that a replica serves."""
    VNC = "VNC"
    """The desktop of a replica."""
    LOGS = "LOGS"
    """The standard output and error of all replicas; also after the job has ended."""


Challenge = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""The SHA-256 of the client's verifier, a secret that opens the session (RFC 7636, "PKCE")."""


class OpenSessionRequest(ApiModel):
    session_type: SessionType
    rank: int = Field(default=0, ge=0)
    challenge: Challenge | None = None


class SessionItem(ApiModel):
    """The item of the provider's call `interactiveSession`. `challenge` is ours, not UCloud's."""

    job: Job
    rank: int = Field(default=0, ge=0)
    session_type: SessionType
    challenge: Challenge | None = None


class BaseSession(ApiModel):
    job_id: str
    rank: int = 0
    needs_verifier: bool = Field(default=False, exclude_if=lambda needs: not needs)
    """Ours: the addresses also need the query parameter `verifier`, the secret of the challenge.

    A reader of the workflow's history can then not open the session.
    """


class ShellSession(BaseSession):
    """A terminal: `session_identifier` is the token for the provider's shell WebSocket.

    Ours, not UCloud's: `url`, the complete address of the WebSocket with the token, and `page`, a
    page of the provider with the terminal.
    """

    type: Literal["shell"] = "shell"
    session_identifier: str
    url: str | None = None
    page: str | None = None


class WebSession(BaseSession):
    type: Literal["web"] = "web"
    redirect_client_to: str


class VncSession(BaseSession):
    """A desktop: a WebSocket for VNC (as noVNC uses), with the token, and VNC's own password.

    `page` is ours, not UCloud's: a page of the provider with the desktop.
    """

    type: Literal["vnc"] = "vnc"
    url: str
    password: str | None = None
    page: str | None = None


class LogsSession(BaseSession):
    """The output of a job: a WebSocket that sends `FollowMessage`s, with the token."""

    type: Literal["logs"] = "logs"
    url: str


OpenSession = Annotated[
    ShellSession | WebSession | VncSession | LogsSession, Field(discriminator="type")
]
"""A response of a provider to `interactiveSession`."""

OPEN_SESSION: TypeAdapter[OpenSession] = TypeAdapter(OpenSession)


Session = TypeVar("Session", bound=BaseSession)


def challenge_of(verifier: str) -> str:
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
