"""Accounting: charges of providers, reservations for more time, grants, and wallets."""

from __future__ import annotations

from collections.abc import Collection

from temporalio import activity

from activities.errors import map_store_rejections, rejection
from ucloud_orchestrator.models.accounting import ChargeResult
from ucloud_orchestrator.models.errors import ErrorCode
from ucloud_orchestrator.models.messages import (
    ChargeCall,
    GrantRequest,
    ReserveCall,
    WalletsAnswer,
    WalletsRequest,
)
from ucloud_orchestrator.store import Wallets
from ucloud_orchestrator.temporal.names import ACTIVITY_BROWSE_WALLETS, ACTIVITY_GRANT


class AccountingActivities:
    """Local activities of the job's workflow. Idempotent."""

    def __init__(self, wallets: Wallets) -> None:
        self._wallets = wallets

    @activity.defn
    async def charge(self, call: ChargeCall) -> ChargeResult:
        """Record each charge once. Raises `INVALID_STATE` if the job is not live."""
        with map_store_rejections():
            return await self._wallets.charge(call.job_id, call.charges)

    @activity.defn
    async def reserve(self, call: ReserveCall) -> None:
        """Reserve the price of a whole time allocation. Raises `INSUFFICIENT_FUNDS`."""
        with map_store_rejections():
            await self._wallets.reserve(call.job_id, call.milliseconds)


class WalletActivities:
    """Standalone activities: clients have no access to the database."""

    def __init__(self, wallets: Wallets, operators: Collection[str]) -> None:
        self._wallets = wallets
        self._operators = operators

    @activity.defn(name=ACTIVITY_GRANT)
    async def grant(self, request: GrantRequest) -> None:
        """Add credits to a wallet, once for each grant id.

        Raises `FORBIDDEN` unless the user is an operator.
        """
        if request.granted_by not in self._operators:
            text = (
                f"{request.granted_by} may not grant credits: the operators of this "
                "orchestrator do that."
            )
            raise rejection(ErrorCode.FORBIDDEN, text)
        with map_store_rejections():
            await self._wallets.grant(
                request.owner,
                request.category,
                request.amount,
                request.note,
                grant_id=request.grant_id,
            )

    @activity.defn(name=ACTIVITY_BROWSE_WALLETS)
    async def browse(self, request: WalletsRequest) -> WalletsAnswer:
        """Return all wallets of an owner, and as many ledger entries as requested."""
        movements = (
            await self._wallets.list_movements(request.owner, request.movements)
            if request.movements
            else []
        )
        return WalletsAnswer(wallets=await self._wallets.browse(request.owner), movements=movements)
