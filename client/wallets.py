"""Wallets, and the holders of public links and IP addresses."""

from __future__ import annotations

from typing import Literal

from client.connection import ActorConnection
from client.errors import RequestRefused
from ucloud_orchestrator.models.errors import ErrorCode
from ucloud_orchestrator.models.messages import (
    FindHolderRequest,
    GrantRequest,
    HolderAnswer,
    WalletsAnswer,
    WalletsRequest,
)
from ucloud_orchestrator.models.product import ProductCategory
from ucloud_orchestrator.models.workspace import Workspace
from ucloud_orchestrator.temporal import names


class WalletClient:
    def __init__(self, connection: ActorConnection) -> None:
        self._connection = connection

    async def wallets(self, movements: int) -> WalletsAnswer:
        actor = self._connection.actor
        if not await self._connection.is_member():
            message = f"{actor.username} is not a member of a project {actor.project}."
            raise RequestRefused(ErrorCode.FORBIDDEN, message)
        return await self._connection.execute_activity(
            names.ACTIVITY_BROWSE_WALLETS,
            WalletsRequest(owner=self._connection.workspace, movements=movements),
            WalletsAnswer,
        )

    async def grant(
        self, owner: Workspace, category: ProductCategory, amount: int, note: str
    ) -> None:
        request = GrantRequest(
            grant_id=names.new_job_id(),
            granted_by=self._connection.actor.username,
            owner=owner,
            category=category,
            amount=amount,
            note=note,
        )
        await self._connection.execute_activity(names.ACTIVITY_GRANT, request, None)

    async def holder(self, kind: Literal["ingress", "network"], resource_id: str) -> str | None:
        """Return the id of the live job that holds a link or an address."""
        request = FindHolderRequest(
            username=self._connection.actor.username, kind=kind, resource_id=resource_id
        )
        answer = await self._connection.execute_activity(
            names.ACTIVITY_FIND_HOLDER, request, HolderAnswer
        )
        return answer.job_id
