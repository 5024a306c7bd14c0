"""What the catalog and the store say of users and of what they own; for clients, who have
neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from temporalio import activity

from activities.errors import refusal
from ucloud_orchestrator.catalog import Catalog
from ucloud_orchestrator.models.access import resource_permissions
from ucloud_orchestrator.models.errors import ErrorCode
from ucloud_orchestrator.models.job import Permission
from ucloud_orchestrator.models.messages import (
    FindHolderRequest,
    HolderAnswer,
    MembershipsAnswer,
    MembershipsRequest,
)
from ucloud_orchestrator.models.workspace import Resource
from ucloud_orchestrator.store import ClaimStore
from ucloud_orchestrator.temporal.names import ACTIVITY_BROWSE_MEMBERSHIPS, ACTIVITY_FIND_HOLDER


class DirectoryActivities:
    """Standalone activities; they only read."""

    def __init__(self, catalog: Callable[[], Catalog], holdings: ClaimStore) -> None:
        self._catalog = catalog
        self._holdings = holdings

    @activity.defn(name=ACTIVITY_BROWSE_MEMBERSHIPS)
    async def memberships(self, request: MembershipsRequest) -> MembershipsAnswer:
        """Every project that a user is in, with his role and groups."""
        return MembershipsAnswer(memberships=self._catalog().memberships(request.username))

    @activity.defn(name=ACTIVITY_FIND_HOLDER)
    async def holder(self, request: FindHolderRequest) -> HolderAnswer:
        """The job that holds a public link or IP address.

        Raises `NOT_FOUND` if the asker may not see that.
        """
        catalog = self._catalog()
        known: Mapping[str, Resource] = (
            catalog.links if request.kind == "ingress" else catalog.addresses
        )
        resource, memberships = (
            known.get(request.resource_id),
            catalog.memberships(request.username),
        )
        if resource is None or Permission.READ not in resource_permissions(
            request.username, memberships, resource
        ):
            raise refusal(ErrorCode.NOT_FOUND, f"There is no {request.kind} {request.resource_id}.")
        return HolderAnswer(job_id=await self._holdings.holder(request.kind, request.resource_id))
