"""Inject faults by a fixed and by a random seed (`tests/chaos`).

`UCLOUD_TEST_SEED` repeats a schedule.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.faults import KINDS, schedule
from tests.chaos.run import run

pytestmark = pytest.mark.long


def test_a_seed_repeats_a_schedule_of_every_fault() -> None:
    assert schedule(1, 40) == schedule(1, 40) != schedule(2, 40)
    assert {fault.kind for fault in schedule(1, len(KINDS))} == set(KINDS)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder outside of pytest's own, which is closed to PostgreSQL's user."""
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as made:
        yield Path(made)


@pytest.mark.timeout(480)
@pytest.mark.parametrize(("seed", "faults"), [(1, len(KINDS)), (None, 9)], ids=["fixed", "random"])
async def test_no_job_is_lost_under_faults(folder: Path, seed: int | None, faults: int) -> None:
    if seed is None:
        seed = int(os.environ.get("UCLOUD_TEST_SEED", time.time_ns() % 1_000_000))
    report = await run(folder, seed, faults, jobs=25, client_count=6, log=print)
    print(report.summary)
    assert report.broken == []
