"""Keep log lines away from standard output, which programs read."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest
from temporalio.testing import WorkflowEnvironment

from client import Actor, JobClient, Unreachable
from tests.builders import specification
from tests.chaos.links import Link
from tests.waiting import eventually
from ucloud_orchestrator.temporal.connection import connect_to_temporal
from ucloud_orchestrator.temporal.runtime import LOGGER, make_runtime


async def test_sdk_warnings_are_logged_and_not_printed(
    environment: WorkflowEnvironment,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = int(environment.client.service_client.config.target_host.rpartition(":")[2])
    async with Link.to_port(port).listening() as link:
        temporal = await connect_to_temporal(f"127.0.0.1:{link.port}", runtime=make_runtime())
        jobs = JobClient(temporal, Actor(username="alice"))
        link.cut()
        with caplog.at_level(logging.WARNING, LOGGER):
            with pytest.raises(Unreachable):
                await jobs.create(specification("echo"), timeout=timedelta(seconds=20))
            await eventually(lambda: "retried" in caplog.text)
    assert capfd.readouterr().out == ""
