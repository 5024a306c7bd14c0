"""What serving needs: Temporal's namespace, search attributes and schedules, the database, the keys
of providers.

Every step may be repeated: it makes what is missing, changes what the settings name, and leaves the
rest alone.
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
