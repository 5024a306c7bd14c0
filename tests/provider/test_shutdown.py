"""A provider that is told to end does so, whatever happens at that moment."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from provider.ledger import Ledger
from provider.reporter import Reporter
from provider.runner import Runner
from provider.stewardship import Steward
from tests.provider.served import Reports, Served


@pytest.mark.parametrize("milliseconds", [0, 1, 3, 10, 30])
@pytest.mark.parametrize("name", ["runner", "reporter", "steward"])
async def test_an_end_that_comes_together_with_news_is_not_lost(tmp_path: Path, name: str, milliseconds: int) -> None:
    reports = Reports()
    settings = Served(tmp_path, reports).settings
    ledger = Ledger(settings.data_dir / "provider.sqlite")
    await ledger.open()
    runner = Runner(settings, ledger)
    reporter = Reporter(ledger, "local", runner.reports_waiting, runner.figures, reports)
    steward = Steward(ledger, "local", 900, runner.look, reports)
    part, news = {
        "runner": (runner, runner.look),
        "reporter": (reporter, runner.reports_waiting.set),
        "steward": (steward, steward.look),
    }[name]
    task = asyncio.create_task(part.run())
    await asyncio.sleep(milliseconds / 1000)
    news()
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    await ledger.close()
    assert task.cancelled()
