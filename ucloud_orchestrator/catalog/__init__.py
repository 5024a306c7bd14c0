"""What exists: applications, tools, products, providers and projects, from a folder of YAML files.

The worker, the activities, `setup` and the command line may import it; it imports `models` only.
"""

from ucloud_orchestrator.catalog.catalog import (
    Catalog,
    Problem,
    ProviderEntry,
    ProviderLimits,
    Severity,
)
from ucloud_orchestrator.catalog.loader import load
from ucloud_orchestrator.catalog.reloading import ReloadingCatalog

__all__ = [
    "Catalog",
    "Problem",
    "ProviderEntry",
    "ProviderLimits",
    "ReloadingCatalog",
    "Severity",
    "load",
]
