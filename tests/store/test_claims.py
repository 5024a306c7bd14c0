"""Claims of live jobs: all or nothing, exclusive, and released at the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests import builders
from tests.builders import specification
from tests.store.ledger_assertions import check_ledger
from ucloud_orchestrator.models import (
    ErrorCode,
    Job,
    JobOwner,
    JobSpecification,
    JobState,
)
from ucloud_orchestrator.models.accounting import ChargeResult, Price
from ucloud_orchestrator.models.claims import Claim, claim_of
from ucloud_orchestrator.models.product import ProductCategory, UnitOfPrice
from ucloud_orchestrator.models.provider_api import Charge
from ucloud_orchestrator.models.workspace import Workspace
from ucloud_orchestrator.store import ClaimStore, StoreRejected, Wallets

CPU = ProductCategory(name="cpu", provider="local")
ALICE = Workspace(user="alice")
HOUR = 3_600_000


def one_hour(**changes: Any) -> JobSpecification:
    return specification(**{"timeAllocation": {"hours": 1}} | changes)


def price(credits_per_minute: int = 1, milliseconds: int = HOUR) -> Price:
    return Price(
        category=CPU,
        price_per_unit=credits_per_minute,
        unit_of_price=UnitOfPrice.CREDITS_PER_MINUTE,
        replicas=1,
        milliseconds=milliseconds,
    )


def new_claim(job_id: str, cost: Price | None = None, user: str = "alice", **changes: Any) -> Claim:
    return claim_of(job_id, JobOwner(created_by=user), one_hour(name=job_id, **changes), cost)


def ended_job(job_id: str) -> Job:
    return builders.job(job_id, JobState.SUCCESS, one_hour())


async def try_claim(claims: ClaimStore, *wanted: Claim) -> StoreRejected | None:
    try:
        await claims.claim(wanted)
    except StoreRejected as rejection:
        return rejection
    return None


async def test_one_of_a_hundred_jobs_gets_the_link(engine: AsyncEngine) -> None:
    claims = ClaimStore(engine)
    link = {"type": "ingress", "id": "app"}
    wanted = [new_claim(f"job-{number}", resources=[link]) for number in range(100)]
    answers = await asyncio.gather(*(try_claim(claims, claim) for claim in wanted))
    holder = await claims.find_holder("ingress", "app")
    rejections = [answer for answer in answers if answer is not None]
    assert len(rejections) == 99
    assert {rejection.code for rejection in rejections} == {ErrorCode.RESOURCE_IN_USE}
    assert {str(rejection) for rejection in rejections} == {
        f"The public link app is in use by the job {holder}."
    }
    assert rejections[0].findings[0].field == "resources[0]"
    assert holder is not None
    await claims.settle(ended_job(holder))
    assert await try_claim(claims, new_claim("next", resources=[link])) is None
    assert await claims.find_holder("ingress", "app") == "next"
    await check_ledger(engine)


async def test_admission_and_settlement_are_idempotent(engine: AsyncEngine) -> None:
    claims, wallets = ClaimStore(engine), Wallets(engine)
    await wallets.grant(ALICE, CPU, 100)
    claim = new_claim("1", price(), resources=[{"type": "network", "id": "ip"}])
    for _ in range(3):
        assert await try_claim(claims, claim) is None
    assert (await wallets.browse(ALICE))[0].reserved == 60
    for _ in range(3):
        await claims.settle(ended_job("1"))
    assert (await wallets.browse(ALICE))[0].available == 100
    rejection = await try_claim(claims, claim)
    assert rejection is not None
    assert rejection.code is ErrorCode.DUPLICATE_JOB
    await check_ledger(engine)


async def test_a_rejection_has_every_finding_and_claims_nothing(engine: AsyncEngine) -> None:
    claims = ClaimStore(engine)
    bound = [{"type": "ingress", "id": "app"}, {"type": "network", "id": "ip"}]
    first = new_claim("first", resources=bound)
    await claims.claim([first])
    same = first.model_copy(update={"job_id": "second", "price": price()})
    rejection = await try_claim(claims, new_claim("third"), same)
    assert rejection is not None
    assert [finding.code for finding in rejection.findings] == [
        ErrorCode.DUPLICATE_JOB,
        ErrorCode.RESOURCE_IN_USE,
        ErrorCode.RESOURCE_IN_USE,
        ErrorCode.INSUFFICIENT_FUNDS,
    ]
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT id FROM live_jobs"))).scalars().all() == [
            "first"
        ]
    await check_ledger(engine)


async def test_duplicates_must_be_allowed(engine: AsyncEngine) -> None:
    claims = ClaimStore(engine)
    owner = JobOwner(created_by="alice")
    first, second = (claim_of(job_id, owner, one_hour(), None) for job_id in ("1", "2"))
    answers = await asyncio.gather(try_claim(claims, first), try_claim(claims, second))
    assert sorted(answer is None for answer in answers) == [False, True]
    allowed = claim_of("3", owner, one_hour(allowDuplicateJob=True), None)
    assert await try_claim(claims, allowed) is None
    for job_id in ("1", "2"):
        await claims.settle(ended_job(job_id))
    rejection = await try_claim(claims, claim_of("4", owner, one_hour(), None))
    assert rejection is not None
    assert "The job 3 asks for the same" in str(rejection)
    await claims.settle(ended_job("3"))
    assert await try_claim(claims, claim_of("4", owner, one_hour(), None)) is None
    assert (
        await try_claim(claims, claim_of("5", JobOwner(created_by="bob"), one_hour(), None)) is None
    )


async def test_concurrent_jobs_never_reserve_more_than_the_wallet_has(engine: AsyncEngine) -> None:
    claims, wallets = ClaimStore(engine), Wallets(engine)
    await wallets.grant(ALICE, CPU, 60 * 7 + 59)
    wanted = [new_claim(f"job-{number}", price()) for number in range(20)]
    answers = await asyncio.gather(*(try_claim(claims, claim) for claim in wanted))
    assert sum(answer is None for answer in answers) == 7
    assert {answer.code for answer in answers if answer} == {ErrorCode.INSUFFICIENT_FUNDS}
    await check_ledger(engine)


async def test_a_charge_counts_once(engine: AsyncEngine) -> None:
    claims, wallets = ClaimStore(engine), Wallets(engine)
    await wallets.grant(ALICE, CPU, 100)
    await claims.claim([new_claim("1", price())])
    charges = [Charge(charge_id=str(number), units=10, periods=1) for number in range(3)]
    answers = await asyncio.gather(*(wallets.charge("1", charges) for _ in range(5)))
    assert sum(len(answer.duplicate_charges) for answer in answers) == 4 * 3
    assert {answer.credits_charged for answer in answers} == {30}
    wallet = (await wallets.browse(ALICE))[0]
    assert (wallet.available, wallet.reserved, wallet.spent) == (40, 30, 30)
    await check_ledger(engine)


async def test_a_charge_beyond_the_reservation_takes_from_the_wallet(
    engine: AsyncEngine,
) -> None:
    claims, wallets = ClaimStore(engine), Wallets(engine)
    await wallets.grant(ALICE, CPU, 100)
    await claims.claim([new_claim("1", price())])
    answer = await wallets.charge("1", [Charge(charge_id="big", units=101, periods=1)])
    assert answer.insufficient_funds == ["big"]
    answer = await wallets.charge("1", [Charge(charge_id="all", units=50, periods=2)])
    assert (answer.insufficient_funds, answer.credits_charged) == ([], 100)
    assert (
        await wallets.charge("1", [Charge(charge_id="one", units=1, periods=1)])
    ).insufficient_funds == ["one"]
    huge = Charge(charge_id="huge", units=2**31 - 1, periods=2**31 - 1)
    assert (await wallets.charge("1", [huge])).insufficient_funds == ["huge"]
    await wallets.grant(ALICE, CPU, 1)
    assert (
        await wallets.charge("1", [Charge(charge_id="one", units=1, periods=1)])
    ).credits_charged == 101
    await claims.settle(ended_job("1"))
    with pytest.raises(StoreRejected) as rejection:
        await wallets.charge("1", [Charge(charge_id="late", units=1, periods=1)])
    assert rejection.value.code is ErrorCode.INVALID_STATE
    await check_ledger(engine)


async def test_more_time_is_reserved_or_rejected(engine: AsyncEngine) -> None:
    claims, wallets = ClaimStore(engine), Wallets(engine)
    await wallets.grant(ALICE, CPU, 150)
    await claims.claim([new_claim("1", price())])
    for _ in range(2):
        await wallets.reserve("1", 2 * HOUR)
    assert (await wallets.browse(ALICE))[0].reserved == 120
    with pytest.raises(StoreRejected) as rejection:
        await wallets.reserve("1", 3 * HOUR)
    assert rejection.value.code is ErrorCode.INSUFFICIENT_FUNDS
    await wallets.reserve("1", HOUR)
    assert (await wallets.browse(ALICE))[0].reserved == 60
    await check_ledger(engine)


async def test_a_free_job_is_charged_nothing(engine: AsyncEngine) -> None:
    claims, wallets = ClaimStore(engine), Wallets(engine)
    await claims.claim([new_claim("1")])
    await wallets.reserve("1", 2 * HOUR)
    charge = Charge(charge_id="1", units=10, periods=1)
    assert (await wallets.charge("1", [charge])).credits_charged == 0
    assert (await wallets.charge("1", [charge])).duplicate_charges == ["1"]


async def test_a_grant_beyond_the_maximum_is_rejected(engine: AsyncEngine) -> None:
    wallets = Wallets(engine)
    await wallets.grant(ALICE, CPU, 2**63 - 1)
    for amount in (1, 2**63, 0, -5):
        with pytest.raises(StoreRejected):
            await wallets.grant(ALICE, CPU, amount)
    assert [wallet.available for wallet in await wallets.browse(ALICE)] == [2**63 - 1]
    await check_ledger(engine)


async def test_reserved_and_spent_credits_count_towards_the_maximum(
    engine: AsyncEngine,
) -> None:
    claims, wallets = ClaimStore(engine), Wallets(engine)
    await wallets.grant(ALICE, CPU, 2**63 - 1)
    await claims.claim([new_claim("1", price())])
    await wallets.charge("1", [Charge(charge_id="1", units=10, periods=1)])
    with pytest.raises(StoreRejected):
        await wallets.grant(ALICE, CPU, 1)
    await claims.settle(ended_job("1"))
    wallet = (await wallets.browse(ALICE))[0]
    assert (wallet.available, wallet.spent) == (2**63 - 1 - 10, 10)
    await check_ledger(engine)


async def test_overlapping_attempts_of_one_admission_claim_once(engine: AsyncEngine) -> None:
    claims, wallets = ClaimStore(engine), Wallets(engine)
    await wallets.grant(ALICE, CPU, 1000)
    claim = new_claim("1", price(), resources=[{"type": "ingress", "id": "app"}])
    assert await asyncio.gather(*(try_claim(claims, claim) for _ in range(10))) == [None] * 10
    wallet = (await wallets.browse(ALICE))[0]
    assert (wallet.available, wallet.reserved) == (940, 60)
    assert await claims.find_claim("1", "1") == claim
    assert await claims.find_claim("1", "another workflow") is None
    await check_ledger(engine)


async def test_a_slow_attempt_claims_nothing_after_the_withdrawal(engine: AsyncEngine) -> None:
    claims, wallets = ClaimStore(engine), Wallets(engine)
    await wallets.grant(ALICE, CPU, 1000)
    wanted = [new_claim(f"job-{number}", price()) for number in range(20)]
    attempts = [try_claim(claims, claim) for claim in wanted for _ in range(2)]
    withdrawals = [claims.withdraw(claim.claimed_by, [claim.job_id]) for claim in wanted]
    await asyncio.gather(
        *(
            work
            for pair in zip(attempts[::2], withdrawals, attempts[1::2], strict=True)
            for work in pair
        )
    )
    for claim in wanted:
        rejection = await try_claim(claims, claim)
        assert rejection is not None
        assert rejection.code is ErrorCode.DUPLICATE_JOB
    assert (await wallets.browse(ALICE))[0].available == 1000
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT id FROM live_jobs"))).all() == []
    await check_ledger(engine)


async def test_a_withdrawal_leaves_the_claims_of_other_workflows(engine: AsyncEngine) -> None:
    claims = ClaimStore(engine)
    await claims.claim([new_claim("1")])
    await claims.withdraw("batch", ["1"])
    assert await claims.find_claim("1", "1") is not None
    assert await try_claim(claims, new_claim("1")) is None


async def test_claims_withdrawals_and_charges_never_deadlock(
    engine: AsyncEngine,
) -> None:
    """PostgreSQL would abort one of two transactions in a deadlock."""
    claims, wallets = ClaimStore(engine), Wallets(engine)
    users = ["alice", "bob", "carol"]
    for user in users:
        await wallets.grant(Workspace(user=user), CPU, 100_000)

    async def batch(name: str) -> list[object]:
        jobs = [new_claim(f"{name}-{number}", price(), users[number % 3]) for number in range(6)]
        jobs = [claim.model_copy(update={"claimed_by": name}) for claim in jobs]
        await claims.claim(jobs if name[-1] in "02468" else jobs[::-1])
        charges = [
            wallets.charge(claim.job_id, [Charge(charge_id="1", units=number, periods=1)])
            for number, claim in enumerate(jobs)
        ]
        ids = [claim.job_id for claim in jobs]
        return await asyncio.gather(
            *charges, claims.withdraw(name, ids[::-1]), return_exceptions=True
        )

    answers = await asyncio.gather(*(batch(str(number)) for number in range(12)))
    # A charge may come after its job was withdrawn; no other error is allowed.
    assert {type(answer) for of_batch in answers for answer in of_batch} <= {
        type(None),
        ChargeResult,
        StoreRejected,
    }
    await check_ledger(engine)


async def test_a_repeat_after_the_withdrawal_gets_the_same_findings(engine: AsyncEngine) -> None:
    claims, poor, late = ClaimStore(engine), new_claim("1", price()), new_claim("2")
    for _ in range(2):
        rejection = await try_claim(claims, poor)
        assert rejection is not None
        assert rejection.code is ErrorCode.INSUFFICIENT_FUNDS
        await claims.withdraw(poor.claimed_by, [poor.job_id])
    await claims.withdraw(late.claimed_by, [late.job_id])
    rejection = await try_claim(claims, late)
    assert rejection is not None
    assert (rejection.code, str(rejection)) == (
        ErrorCode.DUPLICATE_JOB,
        "A job with the id 2 was refused before.",
    )
    assert await claims.list_claims("local") == ([], None)
