"""What is held for live jobs: all or nothing, by one at a time, and given back at the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.store.ledger_assertions import check_the_books
from ucloud_orchestrator.models import (
    ErrorCode,
    Job,
    JobOwner,
    JobSpecification,
    JobState,
    JobStatus,
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
PRODUCT = {"id": "cpu-1", "category": "cpu", "provider": "local"}


def specification(**changes: Any) -> JobSpecification:
    document = {
        "application": {"name": "a", "version": "1"},
        "product": PRODUCT,
        "timeAllocation": {"hours": 1},
    }
    return JobSpecification.model_validate(document | changes)


def price(credits_per_minute: int = 1, milliseconds: int = HOUR) -> Price:
    return Price(
        category=CPU,
        price_per_unit=credits_per_minute,
        unit_of_price=UnitOfPrice.CREDITS_PER_MINUTE,
        replicas=1,
        milliseconds=milliseconds,
    )


def holding(job_id: str, cost: Price | None = None, user: str = "alice", **changes: Any) -> Claim:
    return claim_of(job_id, JobOwner(created_by=user), specification(name=job_id, **changes), cost)


def ended(job_id: str) -> Job:
    return Job(
        id=job_id,
        owner=JobOwner(created_by="alice"),
        specification=specification(),
        status=JobStatus(state=JobState.SUCCESS),
        created_at=1,
    )


async def taken(holdings: ClaimStore, *wanted: Claim) -> StoreRejected | None:
    try:
        await holdings.claim(wanted)
    except StoreRejected as refusal:
        return refusal
    return None


async def test_a_hundred_jobs_want_one_link(engine: AsyncEngine) -> None:
    holdings = ClaimStore(engine)
    link = {"type": "ingress", "id": "app"}
    wanted = [holding(f"job-{number}", resources=[link]) for number in range(100)]
    answers = await asyncio.gather(*(taken(holdings, one) for one in wanted))
    holder = await holdings.holder("ingress", "app")
    refusals = [answer for answer in answers if answer is not None]
    assert len(refusals) == 99
    assert {refusal.code for refusal in refusals} == {ErrorCode.RESOURCE_IN_USE}
    assert {str(refusal) for refusal in refusals} == {
        f"The public link app is in use by the job {holder}."
    }
    assert refusals[0].findings[0].field == "resources[0]"
    assert holder is not None
    await holdings.settle(ended(holder))
    assert await taken(holdings, holding("next", resources=[link])) is None
    assert await holdings.holder("ingress", "app") == "next"
    await check_the_books(engine)


async def test_admission_and_settlement_may_be_repeated(engine: AsyncEngine) -> None:
    holdings, wallets = ClaimStore(engine), Wallets(engine)
    await wallets.grant(ALICE, CPU, 100)
    one = holding("1", price(), resources=[{"type": "network", "id": "ip"}])
    for _ in range(3):
        assert await taken(holdings, one) is None
    assert (await wallets.browse(ALICE))[0].reserved == 60
    for _ in range(3):
        await holdings.settle(ended("1"))
    assert (await wallets.browse(ALICE))[0].available == 100
    refusal = await taken(holdings, one)
    assert refusal is not None
    assert refusal.code is ErrorCode.DUPLICATE_JOB
    await check_the_books(engine)


async def test_every_reason_is_told_and_nothing_is_held(engine: AsyncEngine) -> None:
    holdings = ClaimStore(engine)
    bound = [{"type": "ingress", "id": "app"}, {"type": "network", "id": "ip"}]
    first = holding("first", resources=bound)
    await holdings.claim([first])
    same = first.model_copy(update={"job_id": "second", "price": price()})
    refusal = await taken(holdings, holding("third"), same)
    assert refusal is not None
    assert [finding.code for finding in refusal.findings] == [
        ErrorCode.DUPLICATE_JOB,
        ErrorCode.RESOURCE_IN_USE,
        ErrorCode.RESOURCE_IN_USE,
        ErrorCode.INSUFFICIENT_FUNDS,
    ]
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT id FROM live_jobs"))).scalars().all() == [
            "first"
        ]
    await check_the_books(engine)


async def test_the_same_job_twice_must_be_allowed(engine: AsyncEngine) -> None:
    holdings = ClaimStore(engine)
    owner = JobOwner(created_by="alice")
    first, second = (claim_of(job_id, owner, specification(), None) for job_id in ("1", "2"))
    answers = await asyncio.gather(taken(holdings, first), taken(holdings, second))
    assert sorted(answer is None for answer in answers) == [False, True]
    allowed = claim_of("3", owner, specification(allowDuplicateJob=True), None)
    assert await taken(holdings, allowed) is None
    for job_id in ("1", "2"):
        await holdings.settle(ended(job_id))
    refusal = await taken(holdings, claim_of("4", owner, specification(), None))
    assert refusal is not None
    assert "The job 3 asks for the same" in str(refusal)
    await holdings.settle(ended("3"))
    assert await taken(holdings, claim_of("4", owner, specification(), None)) is None
    assert (
        await taken(holdings, claim_of("5", JobOwner(created_by="bob"), specification(), None))
        is None
    )


async def test_concurrent_jobs_never_hold_more_than_the_wallet_has(engine: AsyncEngine) -> None:
    holdings, wallets = ClaimStore(engine), Wallets(engine)
    await wallets.grant(ALICE, CPU, 60 * 7 + 59)
    wanted = [holding(f"job-{number}", price()) for number in range(20)]
    answers = await asyncio.gather(*(taken(holdings, one) for one in wanted))
    assert sum(answer is None for answer in answers) == 7
    assert {answer.code for answer in answers if answer} == {ErrorCode.INSUFFICIENT_FUNDS}
    await check_the_books(engine)


async def test_a_charge_counts_once(engine: AsyncEngine) -> None:
    holdings, wallets = ClaimStore(engine), Wallets(engine)
    await wallets.grant(ALICE, CPU, 100)
    await holdings.claim([holding("1", price())])
    charges = [Charge(charge_id=str(number), units=10, periods=1) for number in range(3)]
    answers = await asyncio.gather(*(wallets.charge("1", charges) for _ in range(5)))
    assert sum(len(answer.duplicate_charges) for answer in answers) == 4 * 3
    assert {answer.credits_charged for answer in answers} == {30}
    wallet = (await wallets.browse(ALICE))[0]
    assert (wallet.available, wallet.reserved, wallet.spent) == (40, 30, 30)
    await check_the_books(engine)


async def test_a_charge_beyond_the_reservation_takes_from_the_wallet_or_is_refused(
    engine: AsyncEngine,
) -> None:
    holdings, wallets = ClaimStore(engine), Wallets(engine)
    await wallets.grant(ALICE, CPU, 100)
    await holdings.claim([holding("1", price())])
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
    await holdings.settle(ended("1"))
    with pytest.raises(StoreRejected) as refusal:
        await wallets.charge("1", [Charge(charge_id="late", units=1, periods=1)])
    assert refusal.value.code is ErrorCode.INVALID_STATE
    await check_the_books(engine)


async def test_more_time_is_held_or_refused(engine: AsyncEngine) -> None:
    holdings, wallets = ClaimStore(engine), Wallets(engine)
    await wallets.grant(ALICE, CPU, 150)
    await holdings.claim([holding("1", price())])
    for _ in range(2):
        await wallets.reserve("1", 2 * HOUR)
    assert (await wallets.browse(ALICE))[0].reserved == 120
    with pytest.raises(StoreRejected) as refusal:
        await wallets.reserve("1", 3 * HOUR)
    assert refusal.value.code is ErrorCode.INSUFFICIENT_FUNDS
    await wallets.reserve("1", HOUR)
    assert (await wallets.browse(ALICE))[0].reserved == 60
    await check_the_books(engine)


async def test_a_free_job_is_charged_nothing(engine: AsyncEngine) -> None:
    holdings, wallets = ClaimStore(engine), Wallets(engine)
    await holdings.claim([holding("1")])
    await wallets.reserve("1", 2 * HOUR)
    charge = Charge(charge_id="1", units=10, periods=1)
    assert (await wallets.charge("1", [charge])).credits_charged == 0
    assert (await wallets.charge("1", [charge])).duplicate_charges == ["1"]


async def test_a_grant_beyond_what_a_wallet_can_hold_is_refused(engine: AsyncEngine) -> None:
    wallets = Wallets(engine)
    await wallets.grant(ALICE, CPU, 2**63 - 1)
    for amount in (1, 2**63, 0, -5):
        with pytest.raises(StoreRejected):
            await wallets.grant(ALICE, CPU, amount)
    assert [wallet.available for wallet in await wallets.browse(ALICE)] == [2**63 - 1]
    await check_the_books(engine)


async def test_what_is_held_or_spent_counts_towards_what_a_wallet_can_hold(
    engine: AsyncEngine,
) -> None:
    holdings, wallets = ClaimStore(engine), Wallets(engine)
    await wallets.grant(ALICE, CPU, 2**63 - 1)
    await holdings.claim([holding("1", price())])
    await wallets.charge("1", [Charge(charge_id="1", units=10, periods=1)])
    with pytest.raises(StoreRejected):
        await wallets.grant(ALICE, CPU, 1)
    await holdings.settle(ended("1"))
    wallet = (await wallets.browse(ALICE))[0]
    assert (wallet.available, wallet.spent) == (2**63 - 1 - 10, 10)
    await check_the_books(engine)


async def test_overlapping_attempts_of_one_admission_take_once(engine: AsyncEngine) -> None:
    holdings, wallets = ClaimStore(engine), Wallets(engine)
    await wallets.grant(ALICE, CPU, 1000)
    one = holding("1", price(), resources=[{"type": "ingress", "id": "app"}])
    assert await asyncio.gather(*(taken(holdings, one) for _ in range(10))) == [None] * 10
    wallet = (await wallets.browse(ALICE))[0]
    assert (wallet.available, wallet.reserved) == (940, 60)
    assert await holdings.find_claim("1", "1") == one
    assert await holdings.find_claim("1", "another workflow") is None
    await check_the_books(engine)


async def test_a_slow_attempt_takes_nothing_after_the_withdrawal(engine: AsyncEngine) -> None:
    holdings, wallets = ClaimStore(engine), Wallets(engine)
    await wallets.grant(ALICE, CPU, 1000)
    wanted = [holding(f"job-{number}", price()) for number in range(20)]
    attempts = [taken(holdings, one) for one in wanted for _ in range(2)]
    withdrawals = [holdings.withdraw(one.claimed_by, [one.job_id]) for one in wanted]
    await asyncio.gather(
        *(
            work
            for pair in zip(attempts[::2], withdrawals, attempts[1::2], strict=True)
            for work in pair
        )
    )
    for one in wanted:
        refusal = await taken(holdings, one)
        assert refusal is not None
        assert refusal.code is ErrorCode.DUPLICATE_JOB
    assert (await wallets.browse(ALICE))[0].available == 1000
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT id FROM live_jobs"))).all() == []
    await check_the_books(engine)


async def test_a_withdrawal_leaves_what_another_workflow_has_taken(engine: AsyncEngine) -> None:
    holdings = ClaimStore(engine)
    await holdings.claim([holding("1")])
    await holdings.withdraw("batch", ["1"])
    assert await holdings.find_claim("1", "1") is not None
    assert await taken(holdings, holding("1")) is None


async def test_taking_giving_back_and_charging_never_wait_for_each_other(
    engine: AsyncEngine,
) -> None:
    """PostgreSQL would end one of two transactions that do."""
    holdings, wallets = ClaimStore(engine), Wallets(engine)
    users = ["alice", "bob", "carol"]
    for user in users:
        await wallets.grant(Workspace(user=user), CPU, 100_000)

    async def batch(name: str) -> list[object]:
        jobs = [holding(f"{name}-{number}", price(), users[number % 3]) for number in range(6)]
        jobs = [one.model_copy(update={"claimed_by": name}) for one in jobs]
        await holdings.claim(jobs if name[-1] in "02468" else jobs[::-1])
        charges = [
            wallets.charge(one.job_id, [Charge(charge_id="1", units=number, periods=1)])
            for number, one in enumerate(jobs)
        ]
        ids = [one.job_id for one in jobs]
        return await asyncio.gather(
            *charges, holdings.withdraw(name, ids[::-1]), return_exceptions=True
        )

    answers = await asyncio.gather(*(batch(str(number)) for number in range(12)))
    # A charge may come after its job was withdrawn; nothing else may go wrong.
    assert {type(answer) for of_one in answers for answer in of_one} <= {
        type(None),
        ChargeResult,
        StoreRejected,
    }
    await check_the_books(engine)


async def test_a_repeat_after_the_withdrawal_hears_the_reason_again(engine: AsyncEngine) -> None:
    holdings, poor, late = ClaimStore(engine), holding("1", price()), holding("2")
    for _ in range(2):
        refusal = await taken(holdings, poor)
        assert refusal is not None
        assert refusal.code is ErrorCode.INSUFFICIENT_FUNDS
        await holdings.withdraw(poor.claimed_by, [poor.job_id])
    await holdings.withdraw(late.claimed_by, [late.job_id])
    refusal = await taken(holdings, late)
    assert refusal is not None
    assert (refusal.code, str(refusal)) == (
        ErrorCode.DUPLICATE_JOB,
        "A job with the id 2 was refused before.",
    )
    assert await holdings.live("local") == []
