"""Products that the scheduled check retrieves take precedence over the catalog."""

from __future__ import annotations

from typing import Any

import pytest

from client import JobRejected, RequestRefused
from tests.builders import CPU
from tests.conftest import Orchestrator
from tests.waiting import eventually
from tests.workflows.test_provider_check import check
from ucloud_orchestrator.models import ErrorCode, JobState, SimpleDuration

PLAIN = {"responses": [{"product": CPU, "support": {"native": {"enabled": True}}}]}
ELSE = {"responses": [{"product": CPU | {"id": "cpu-2"}, "support": {"native": {"enabled": True}}}]}


async def rejected_extension(orchestrator: Orchestrator, job_id: str) -> RequestRefused | None:
    try:
        await orchestrator.jobs.extend(job_id, SimpleDuration(hours=1))
    except RequestRefused as rejection:
        return rejection
    return None


async def rejected_creation(orchestrator: Orchestrator) -> JobRejected | None:
    try:
        await orchestrator.created()
    except JobRejected as rejection:
        return rejection
    return None


async def test_a_removed_feature_is_rejected_without_a_call(
    orchestrator: Orchestrator,
) -> None:
    job = await orchestrator.created()
    await orchestrator.report(job.id, JobState.RUNNING)
    assert await rejected_extension(orchestrator, job.id) is None
    orchestrator.provider.products = PLAIN
    await check(orchestrator)
    rejection = await eventually(lambda: rejected_extension(orchestrator, job.id))
    assert rejection is not None
    assert rejection.code is ErrorCode.FEATURE_NOT_SUPPORTED_BY_PROVIDER


async def test_a_removed_product_gets_no_new_jobs(orchestrator: Orchestrator) -> None:
    running = await orchestrator.created()
    orchestrator.provider.products = ELSE
    await check(orchestrator)
    rejection = await eventually(lambda: rejected_creation(orchestrator))
    assert rejection is not None
    assert str(rejection) == "The provider local offers cpu-1/cpu@local no longer."
    assert rejection.code is ErrorCode.PROVIDER_REJECTED
    await orchestrator.report(running.id, JobState.SUCCESS)
    assert (await orchestrator.jobs.wait(running.id)).status.state is JobState.SUCCESS


@pytest.mark.parametrize("answer", [None, "nonsense", {"responses": [{"product": 7}]}])
async def test_an_empty_answer_keeps_the_stored_products(
    orchestrator: Orchestrator, answer: Any
) -> None:
    orchestrator.provider.products = ELSE
    await check(orchestrator)
    await eventually(lambda: rejected_creation(orchestrator))
    orchestrator.provider.products = answer
    await check(orchestrator)
    assert await rejected_creation(orchestrator) is not None
