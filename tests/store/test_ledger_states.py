"""Random sequences of grants, admissions, charges, extensions and ends (Hypothesis)."""
# ruff: noqa: PT017 - a model has to follow both outcomes

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from tests.store.ledger_assertions import check_ledger
from tests.store.test_claims import ALICE, CPU, HOUR, ended_job, new_claim, price
from ucloud_orchestrator.models import ErrorCode
from ucloud_orchestrator.models.provider_api import Charge
from ucloud_orchestrator.store import ClaimStore, StoreRejected, Wallets, connect, upgrade


class LedgerMachine(RuleBasedStateMachine):
    """The model is `available`, `reserved` and `spent`. Every job costs 60 credits an hour."""

    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.engine = connect(f"sqlite+aiosqlite:///{Path(self.folder.name) / 'store.sqlite'}")
        self.runner.run(upgrade(self.engine))
        self.claims, self.wallets = ClaimStore(self.engine), Wallets(self.engine)
        self.available = self.spent = self.count = 0
        self.reserved: dict[str, int] = {}
        self.hours: dict[str, int] = {}
        self.charged: dict[str, set[str]] = {}
        self.runner.run(self.wallets.grant(ALICE, CPU, 1))
        self.available = 1

    @rule(amount=st.integers(1, 500), twice=st.booleans())
    def grant(self, amount: int, twice: bool) -> None:
        self.count += 1
        for _ in range(1 + twice):
            self.runner.run(self.wallets.grant(ALICE, CPU, amount, grant_id=str(self.count)))
        self.available += amount

    @rule(target=jobs, twice=st.booleans())
    def admit(self, twice: bool) -> str:
        self.count += 1
        job_id = f"job-{self.count}"
        for _ in range(1 + twice):
            try:
                self.runner.run(self.claims.claim([new_claim(job_id, price())]))
            except StoreRejected as rejection:
                assert rejection.code is ErrorCode.INSUFFICIENT_FUNDS
                assert self.available < 60
                return job_id
        self.available -= 60
        self.reserved[job_id], self.hours[job_id], self.charged[job_id] = 60, 1, set()
        return job_id

    @rule(job_id=jobs, charge_id=st.sampled_from("abcde"), units=st.integers(0, 90))
    def charge(self, job_id: str, charge_id: str, units: int) -> None:
        charges = [Charge(charge_id=charge_id, units=units, periods=1)]
        try:
            answer = self.runner.run(self.wallets.charge(job_id, charges))
        except StoreRejected as rejection:
            assert (rejection.code, job_id in self.reserved) == (ErrorCode.INVALID_STATE, False)
            return
        if charge_id in self.charged[job_id]:
            assert answer.duplicate_charges == [charge_id]
            return
        beyond = max(0, units - self.reserved[job_id])
        if beyond > self.available:
            assert answer.insufficient_funds == [charge_id]
            return
        assert answer.insufficient_funds == answer.duplicate_charges == []
        self.reserved[job_id] -= units - beyond
        self.available -= beyond
        self.spent += units
        self.charged[job_id].add(charge_id)

    @rule(job_id=jobs, hours=st.integers(1, 5))
    def reserve(self, job_id: str, hours: int) -> None:
        try:
            self.runner.run(self.wallets.reserve(job_id, hours * HOUR))
        except StoreRejected as rejection:
            if job_id in self.reserved:
                assert rejection.code is ErrorCode.INSUFFICIENT_FUNDS
                assert 60 * (hours - self.hours[job_id]) > self.available
            return
        change = max(60 * (hours - self.hours[job_id]), -self.reserved[job_id])
        self.reserved[job_id] += change
        self.available -= change
        self.hours[job_id] = hours

    @rule(job_id=consumes(jobs), withdrawn=st.booleans(), twice=st.booleans())
    def end(self, job_id: str, withdrawn: bool, twice: bool) -> None:
        for _ in range(1 + twice):
            if withdrawn:
                self.runner.run(self.claims.withdraw(job_id, [job_id]))
            else:
                self.runner.run(self.claims.settle(ended_job(job_id)))
        self.available += self.reserved.pop(job_id, 0)

    @invariant()
    def the_ledger_is_consistent(self) -> None:
        self.runner.run(check_ledger(self.engine))
        (wallet,) = self.runner.run(self.wallets.browse(ALICE))
        expected = (self.available, sum(self.reserved.values()), self.spent)
        assert (wallet.available, wallet.reserved, wallet.spent) == expected

    def teardown(self) -> None:
        self.runner.run(self.engine.dispose())
        self.runner.close()
        self.folder.cleanup()


LedgerMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLedger = LedgerMachine.TestCase
