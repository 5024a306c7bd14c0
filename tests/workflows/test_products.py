"""What a provider says of its products, heard in the scheduled check, goes before the catalog."""

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


async def refused_extension(orchestrator: Orchestrator, job_id: str) -> RequestRefused | None:
    try:
        await orchestrator.jobs.extend(job_id, SimpleDuration(hours=1))
    except RequestRefused as refusal:
        return refusal
    return None


async def refused_creation(orchestrator: Orchestrator) -> JobRejected | None:
    try:
        await orchestrator.created()
    except JobRejected as refusal:
        return refusal
    return None


async def test_a_feature_that_is_gone_is_refused_before_the_provider_is_asked(
    orchestrator: Orchestrator,
) -> None:
    job = await orchestrator.created()
    await orchestrator.report(job.id, JobState.RUNNING)
    assert await refused_extension(orchestrator, job.id) is None
    orchestrator.provider.products = PLAIN
    await check(orchestrator)
    refusal = await eventually(lambda: refused_extension(orchestrator, job.id))
    assert refusal is not None
    assert refusal.code is ErrorCode.FEATURE_NOT_SUPPORTED_BY_PROVIDER


async def test_a_product_that_is_gone_takes_no_new_jobs(orchestrator: Orchestrator) -> None:
    running = await orchestrator.created()
    orchestrator.provider.products = ELSE
    await check(orchestrator)
    refusal = await eventually(lambda: refused_creation(orchestrator))
    assert refusal is not None
    assert str(refusal) == "The provider local offers cpu-1/cpu@local no longer."
    assert refusal.code is ErrorCode.PROVIDER_REJECTED
    await orchestrator.report(running.id, JobState.SUCCESS)
    assert (await orchestrator.jobs.wait(running.id)).status.state is JobState.SUCCESS


@pytest.mark.parametrize("answer", [None, "nonsense", {"responses": [{"product": 7}]}])
async def test_an_answer_that_says_nothing_changes_nothing(
    orchestrator: Orchestrator, answer: Any
) -> None:
    orchestrator.provider.products = ELSE
    await check(orchestrator)
    await eventually(lambda: refused_creation(orchestrator))
    orchestrator.provider.products = answer
    await check(orchestrator)
    assert await refused_creation(orchestrator) is not None
