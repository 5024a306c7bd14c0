"""Prepare Temporal's namespace, search attributes and schedules, the database and the keys.

Each step is idempotent: it creates what is missing and changes what the settings name. Only
`worker.py` may import it. It imports `store`, `catalog`, `models`, `temporal` and `process`.
"""

from ucloud_orchestrator.setup.keys import make_keys
from ucloud_orchestrator.setup.schedules import schedule_provider_check
from ucloud_orchestrator.setup.search_attributes import (
    register_search_attributes,
    require_search_attributes,
)
from ucloud_orchestrator.setup.setup import run_setup
from ucloud_orchestrator.setup.steps import Outcome, SetupError, Step

__all__ = [
    "Outcome",
    "SetupError",
    "Step",
    "make_keys",
    "register_search_attributes",
    "require_search_attributes",
    "run_setup",
    "schedule_provider_check",
]
