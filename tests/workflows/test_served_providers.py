"""Which providers a worker serves."""

from __future__ import annotations

import logging

import pytest

from models import JobState
from tests.conditions import eventually
from tests.conftest import Orchestrator


async def test_a_provider_with_a_broken_key_does_not_keep_the_others_from_being_served(
    orchestrator: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    await orchestrator.stop_worker()
    key_file = orchestrator.catalog.parent / "keys" / "second.private.pem"
    whole = key_file.read_text()
    key_file.write_text(key_file.with_name("second.public.pem").read_text())
    with caplog.at_level(logging.ERROR, "worker"):
        async with orchestrator.another_worker():
            job = await orchestrator.created()
            assert job.status.state is JobState.IN_QUEUE
            assert f"Provider second is not served: its key {key_file} cannot be used" in caplog.text
            key_file.write_text(whole)
            second = {"id": "cpu-2", "category": "cpu", "provider": "second"}
            late = await orchestrator.created(product=second)
            await eventually(lambda: "second:create" in orchestrator.provider.calls_for(late.id))
