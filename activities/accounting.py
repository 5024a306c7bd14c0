"""Accounting: charges of providers, the price of more time, grants, and what is in a wallet."""

from __future__ import annotations

from collections.abc import Collection

from temporalio import activity

from activities.errors import refusal, refusals_of_the_store
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
    """Local activities of the workflow; each may be repeated without a further effect."""

    def __init__(self, wallets: Wallets) -> None:
        self._wallets = wallets

    @activity.defn
    async def charge(self, call: ChargeCall) -> ChargeResult:
        """Count each charge once. Raises `INVALID_STATE` if the job is not live."""
        with refusals_of_the_store():
            return await self._wallets.charge(call.job_id, call.charges)

    @activity.defn
    async def reserve(self, call: ReserveCall) -> None:
        """Hold the price of a whole time allocation. Raises `INSUFFICIENT_FUNDS`."""
        with refusals_of_the_store():
            await self._wallets.reserve(call.job_id, call.milliseconds)


class WalletActivities:
    """Standalone activities, for clients, who have no database of their own."""

    def __init__(self, wallets: Wallets, operators: Collection[str]) -> None:
        self._wallets = wallets
        self._operators = operators

    @activity.defn(name=ACTIVITY_GRANT)
    async def grant(self, request: GrantRequest) -> None:
        """Put credits into a wallet, once for each id.

        Raises `FORBIDDEN` if it is not an operator who grants them.
        """
        if request.granted_by not in self._operators:
            text = (
                f"{request.granted_by} may not grant credits: the operators of this "
                "orchestrator do that."
            )
            raise refusal(ErrorCode.FORBIDDEN, text)
        with refusals_of_the_store():
            await self._wallets.grant(
                request.owner,
                request.category,
                request.amount,
                request.note,
                grant_id=request.grant_id,
            )

    @activity.defn(name=ACTIVITY_BROWSE_WALLETS)
    async def browse(self, request: WalletsRequest) -> WalletsAnswer:
        """All wallets of an owner."""
        movements = (
            await self._wallets.movements(request.owner, request.movements)
            if request.movements
            else []
        )
        return WalletsAnswer(wallets=await self._wallets.browse(request.owner), movements=movements)
