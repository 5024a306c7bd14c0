"""What exists: applications, tools, products and providers, from a folder of YAML files."""

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
