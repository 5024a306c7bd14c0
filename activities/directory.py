"""What the catalog says of users; standalone activities, for clients, who have no catalog of their own."""

from __future__ import annotations

from collections.abc import Callable

from temporalio import activity

from catalog import Catalog
from models.messages import MembershipsAnswer, MembershipsRequest
from models.names import ACTIVITY_BROWSE_MEMBERSHIPS


class DirectoryActivities:
    """Reads of the catalog."""

    def __init__(self, catalog: Callable[[], Catalog]) -> None:
        self._catalog = catalog

    @activity.defn(name=ACTIVITY_BROWSE_MEMBERSHIPS)
    async def memberships(self, request: MembershipsRequest) -> MembershipsAnswer:
        """Every project that a user is in, with his role and groups."""
        return MembershipsAnswer(memberships=self._catalog().memberships(request.username))
