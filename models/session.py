"""Interactive sessions: what a user asks for, and where the provider says that it can be had.

The three kinds of UCloud's provider protocol, and `LOGS`, which is ours: the output of a job, read from its provider
with a token of the same kind.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from models.job import Job
from models.wire import WireModel


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


class SessionItem(WireModel):
    """The item of the provider's call `interactiveSession`."""

    job: Job
    rank: int = Field(default=0, ge=0)
    session_type: SessionType


class ShellSession(WireModel):
    """A terminal: `session_identifier` is the token with which the provider's shell WebSocket is opened.

    `url` is ours, not UCloud's: the WebSocket's whole address with the token, so that nothing has to be put together.
    """

    type: Literal["shell"] = "shell"
    job_id: str
    rank: int = 0
    session_identifier: str
    url: str | None = None


class WebSession(WireModel):
    """An address to be opened in a browser; it carries the token."""

    type: Literal["web"] = "web"
    job_id: str
    rank: int = 0
    redirect_client_to: str


class VncSession(WireModel):
    """A desktop: the WebSocket that speaks VNC (as noVNC does), with its token, and VNC's own password.

    `page` is ours, not UCloud's: a page of the provider that shows the desktop in a browser.
    """

    type: Literal["vnc"] = "vnc"
    job_id: str
    rank: int = 0
    url: str
    password: str | None = None
    page: str | None = None


class LogsSession(WireModel):
    """The WebSocket of a job's output with its token; it sends `FollowMessage`s."""

    type: Literal["logs"] = "logs"
    job_id: str
    rank: int = 0
    url: str


OpenSession = Annotated[ShellSession | WebSession | VncSession | LogsSession, Field(discriminator="type")]
"""What a provider answers to `interactiveSession`."""

OPEN_SESSION: TypeAdapter[OpenSession] = TypeAdapter(OpenSession)
"""Reads any of them."""
