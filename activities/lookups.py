"""Lookups in the catalog and the store for clients, which have access to neither."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from temporalio import activity

from activities.errors import rejection
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


class LookupActivities:
    def __init__(self, catalog: Callable[[], Catalog], claims: ClaimStore) -> None:
        self._catalog = catalog
        self._claims = claims

    @activity.defn(name=ACTIVITY_BROWSE_MEMBERSHIPS)
    async def browse_memberships(self, request: MembershipsRequest) -> MembershipsAnswer:
        """Return the projects of a user, with the role and groups in each."""
        return MembershipsAnswer(memberships=self._catalog().memberships(request.username))

    @activity.defn(name=ACTIVITY_FIND_HOLDER)
    async def find_holder(self, request: FindHolderRequest) -> HolderAnswer:
        """Return the job that has claimed a public link or IP address.

        Raises `NOT_FOUND` unless the user may read the resource.
        """
        catalog = self._catalog()
        resources: Mapping[str, Resource] = (
            catalog.links if request.kind == "ingress" else catalog.addresses
        )
        resource = resources.get(request.resource_id)
        memberships = catalog.memberships(request.username)
        if resource is None or Permission.READ not in resource_permissions(
            request.username, memberships, resource
        ):
            text = f"There is no {request.kind} {request.resource_id}."
            raise rejection(ErrorCode.NOT_FOUND, text)
        return HolderAnswer(
            job_id=await self._claims.find_holder(request.kind, request.resource_id)
        )
