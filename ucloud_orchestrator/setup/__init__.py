"""What serving needs: Temporal's namespace, search attributes and schedules, the database, the keys of providers.

Every step may be repeated: it makes what is missing, changes what the settings name, and leaves the rest alone.
"""

from ucloud_orchestrator.setup.keys import make_keys
from ucloud_orchestrator.setup.schedules import schedule_monitor
from ucloud_orchestrator.setup.search_attributes import register_search_attributes, require_search_attributes
from ucloud_orchestrator.setup.setup import set_up
from ucloud_orchestrator.setup.steps import Outcome, SetupRefused, Step

__all__ = [
    "Outcome",
    "SetupRefused",
    "Step",
    "make_keys",
    "register_search_attributes",
    "require_search_attributes",
    "schedule_monitor",
    "set_up",
]
