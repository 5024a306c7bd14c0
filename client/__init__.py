"""How programs talk to the orchestrator: `JobClient` for users, `ProviderClient` for providers."""

from client.acting import Actor
from client.errors import (
    JobClosed,
    JobNotFound,
    JobRejected,
    NotSetUp,
    OrchestratorError,
    RequestRefused,
    Unreachable,
)
from client.jobs import JobClient
from client.provider import ProviderClient
from client.reading import JobFilter

__all__ = [
    "Actor",
    "JobClient",
    "JobClosed",
    "JobFilter",
    "JobNotFound",
    "JobRejected",
    "NotSetUp",
    "OrchestratorError",
    "ProviderClient",
    "RequestRefused",
    "Unreachable",
]
