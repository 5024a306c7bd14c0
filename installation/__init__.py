"""What serving needs: Temporal's namespace, search attributes and schedules, the database, the keys of providers.

Every step may be repeated: it makes what is missing, changes what the settings name, and leaves the rest alone.
"""

from installation.keys import make_keys
from installation.schedules import schedule_monitor
from installation.search_attributes import register_search_attributes, require_search_attributes
from installation.setup import set_up
from installation.steps import Outcome, SetupRefused, Step

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
