"""What exists: applications, tools, products and providers, from a folder of YAML files."""

from catalog.contents import Catalog, Problem, ProviderEntry, ProviderLimits, Severity
from catalog.folder import load
from catalog.reload import ReloadingCatalog

__all__ = ["Catalog", "Problem", "ProviderEntry", "ProviderLimits", "ReloadingCatalog", "Severity", "load"]
