"""Clients of the orchestrator: `JobClient` for users, `ProviderClient` for providers."""

from client.connection import Actor
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
from client.sources import JobFilter

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
