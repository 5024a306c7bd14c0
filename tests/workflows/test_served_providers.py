"""The providers that a worker serves."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Worker

import worker
from tests.conftest import Orchestrator
from tests.waiting import eventually
from ucloud_orchestrator.models import JobState
from ucloud_orchestrator.temporal.names import provider_task_queue


async def test_a_broken_key_of_one_provider_does_not_block_others(
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
            assert (
                f"Provider second is not served: its key {key_file} cannot be used" in caplog.text
            )
            key_file.write_text(whole)
            second = {"id": "cpu-2", "category": "cpu", "provider": "second"}
            late = await orchestrator.created(product=second)
            await eventually(lambda: "second:create" in orchestrator.provider.calls_for(late.id))


class Unpolled(Worker):
    """Makes polls for the provider `second` fail, as if Temporal were away."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if options["task_queue"] == provider_task_queue("second"):
            self._bridge_worker.validate = self._fail  # type: ignore[method-assign, union-attr]

    async def _fail(self) -> None:
        raise RuntimeError("Temporal is away.")


async def test_a_worker_that_cannot_poll_for_a_provider_ends(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    await orchestrator.stop_worker()
    monkeypatch.setattr(worker, "Worker", Unpolled)
    monkeypatch.setattr(worker, "CATALOG_INTERVAL", 0.1)
    target = orchestrator.temporal.service_client.config.target_host
    client = await Client.connect(target, data_converter=pydantic_data_converter)
    faults: list[str] = []
    with pytest.raises(
        RuntimeError, match="The provider second is no longer served: Temporal is away"
    ):
        await orchestrator.new_worker(client, lambda: faults.append("called")).run()
    assert faults == ["called"]
