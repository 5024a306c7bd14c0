"""The UCloud compute orchestrator: `from ucloud_orchestrator import JobClient, ProviderClient,
Actor`.

The names of `client` are exported here lazily, so that importing a sub-package loads no Temporal
client.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client import (
        Actor,
        JobClient,
        JobClosed,
        JobFilter,
        JobNotFound,
        JobRejected,
        NamespaceNotReady,
        OrchestratorError,
        ProviderClient,
        RequestRefused,
        Unreachable,
    )

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


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("client"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
