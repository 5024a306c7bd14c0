"""How programs talk to the orchestrator: `JobClient` for users, `ProviderClient` for providers."""

from client.errors import (
    JobClosed,
    JobNotFound,
    JobRejected,
    NotSetUp,
    OrchestratorError,
    RequestRefused,
    Unreachable,
)
from client.jobs import Actor, JobClient, JobFilter
from client.provider import ProviderClient

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
