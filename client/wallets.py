"""What clients ask and do about credits and bound resources."""

from __future__ import annotations

from typing import Literal

from client.errors import RequestRefused
from client.session import ActorClient
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


class WalletClient(ActorClient):
    """The part of `JobClient` about wallets, links and addresses."""

    async def wallets(self, movements: int = 0) -> WalletsAnswer:
        """The wallets that pay for the actor's jobs, with that many of the newest lines of their
        ledger.

        Raises `RequestRefused` if the actor is not a member of the project.
        """
        if self._actor.project and not any(
            one.project == self._actor.project for one in await self._memberships()
        ):
            message = f"{self._actor.username} is not a member of a project {self._actor.project}."
            raise RequestRefused(ErrorCode.FORBIDDEN, message)
        return await self._ask_worker(
            names.ACTIVITY_BROWSE_WALLETS,
            WalletsRequest(owner=self.workspace, movements=movements),
            WalletsAnswer,
        )

    async def grant(
        self, owner: Workspace, category: ProductCategory, amount: int, note: str = ""
    ) -> None:
        """Put credits into a wallet. Every call is a grant of its own.

        Raises `RequestRefused`, with `FORBIDDEN` if the actor is not an operator.
        """
        request = GrantRequest(
            grant_id=names.new_job_id(),
            granted_by=self._actor.username,
            owner=owner,
            category=category,
            amount=amount,
            note=note,
        )
        await self._ask_worker(names.ACTIVITY_GRANT, request, None)

    async def holder(self, kind: Literal["ingress", "network"], resource_id: str) -> str | None:
        """The live job that holds a public link (`ingress`) or IP address (`network`), or None if
        it is free.

        Raises `RequestRefused` with `NOT_FOUND` if the actor may not see the link or the address.
        """
        request = FindHolderRequest(
            username=self._actor.username, kind=kind, resource_id=resource_id
        )
        return (await self._ask_worker(names.ACTIVITY_FIND_HOLDER, request, HolderAnswer)).job_id
