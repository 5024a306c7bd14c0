"""How programs talk to the orchestrator: `JobClient` for users, `ProviderClient` for providers."""

from client.errors import (
    JobClosed,
    JobNotFound,
    JobRejected,
    NamespaceNotReady,
    OrchestratorError,
    RequestRefused,
    Unreachable,
)
from client.jobs import JobClient
from client.provider import ProviderClient
from client.queries import JobFilter
from client.session import Actor

__all__ = [
    "Actor",
    "JobClient",
    "JobClosed",
    "JobFilter",
    "JobNotFound",
    "JobRejected",
    "NamespaceNotReady",
    "OrchestratorError",
    "ProviderClient",
    "RequestRefused",
    "Unreachable",
]
