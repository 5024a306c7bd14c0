"""Repeated admissions and oversized requests, on the activities themselves."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError
from temporalio.testing import ActivityEnvironment, WorkflowEnvironment

from activities.access_check import AccessCheckActivities
from activities.admission import AdmissionActivities
from activities.products import ProductCache
from client import JobRejected
from tests.builders import specification
from tests.conftest import TEST_CATALOG, Orchestrator
from tests.waiting import eventually
from ucloud_orchestrator.catalog import Catalog, load
from ucloud_orchestrator.models import ErrorCode, Job, JobOwner, JobSpecification, JobState
from ucloud_orchestrator.models.claims import Claim, claim_of
from ucloud_orchestrator.models.errors import MAXIMUM_FINDINGS
from ucloud_orchestrator.models.messages import (
    AdmissionRequest,
    JobsToCancel,
    JobToCancel,
    ProviderCheckRequest,
)
from ucloud_orchestrator.store import ClaimStore, Products, connect, upgrade
from ucloud_orchestrator.store.claims import CLAIMS_PER_PAGE

ALICE = JobOwner(created_by="alice")


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    connected = connect(f"sqlite+aiosqlite:///{tmp_path / 'store.sqlite'}")
    await upgrade(connected)
    yield connected
    await connected.dispose()


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TEST_CATALOG, tmp_path / "catalog"))


@pytest.fixture
def admission(engine: AsyncEngine, catalog: Path) -> AdmissionActivities:
    async def no_peer(_job_id: str) -> Job | None:
        return None

    def current() -> Catalog:
        return load(catalog)

    return AdmissionActivities(current, ClaimStore(engine), no_peer, ProductCache(Products(engine)))


async def admit(admission: AdmissionActivities, wanted: JobSpecification) -> Any:
    request = AdmissionRequest(job_id="1", owner=ALICE, specification=wanted)
    return await ActivityEnvironment().run(admission.admit, request)


async def rejected(admission: AdmissionActivities, wanted: JobSpecification) -> ApplicationError:
    with pytest.raises(ApplicationError) as rejection:
        await admit(admission, wanted)
    return rejection.value


async def test_a_repeated_admission_returns_the_first_result(
    admission: AdmissionActivities, engine: AsyncEngine, catalog: Path
) -> None:
    wanted = specification("server", resources=[{"type": "ingress", "id": "app-link"}])
    first = await admit(admission, wanted)
    file = catalog / "workspaces.yaml"
    file.write_text(file.read_text().replace("id: app-link", "id: another-link"))
    assert await admit(admission, wanted) == first
    assert await ClaimStore(engine).find_holder("ingress", "app-link") == "1"


async def test_nothing_is_claimed_after_a_rejection(
    admission: AdmissionActivities, engine: AsyncEngine, catalog: Path
) -> None:
    wanted = specification("server", resources=[{"type": "ingress", "id": "app-link"}])
    file = catalog / "workspaces.yaml"
    before = file.read_text()
    file.write_text(before.replace("id: app-link", "id: another-link"))
    assert (await rejected(admission, wanted)).type == ErrorCode.NOT_FOUND
    file.write_text(before)
    # As a slow attempt does that read the catalog earlier.
    assert (await rejected(admission, wanted)).type == ErrorCode.DUPLICATE_JOB
    assert await ClaimStore(engine).find_holder("ingress", "app-link") is None


async def test_thousands_of_findings_fit_into_one_message(
    admission: AdmissionActivities,
) -> None:
    files = [{"type": "file", "path": f"/nowhere/{'x' * 1000}/{number}"} for number in range(900)]
    rejection = await rejected(admission, specification("server", resources=files))
    (findings,) = rejection.details
    assert len(findings) == MAXIMUM_FINDINGS + 1
    assert rejection.message.endswith("more.")
    assert len(rejection.message) + len(str(findings)) < 128 * 1024


async def test_defaults_that_make_a_request_too_large(
    admission: AdmissionActivities, catalog: Path
) -> None:
    file = catalog / "catalog.yaml"
    default = (
        f"  text: {{type: text, optional: true, defaultValue: {{type: text, value: "
        f"{'x' * 300_000}}}}}"
    )
    file.write_text(file.read_text().replace("  text: {type: text}", default))
    wanted = specification("echo")
    assert "at most 262144 are possible" in (await rejected(admission, wanted)).message


def lost(number: int) -> Claim:
    wanted = specification(
        "server", resources=[{"type": "file", "path": f"/gone/{'x' * 2000}/{number}"}]
    )
    return claim_of(f"job-{number:04}", ALICE, wanted, None)


async def test_the_access_check_of_many_jobs_is_paged(
    engine: AsyncEngine, catalog: Path, environment: WorkflowEnvironment
) -> None:
    claims = ClaimStore(engine)
    await claims.claim([lost(number) for number in range(CLAIMS_PER_PAGE + 1)])
    monitoring = AccessCheckActivities(lambda: load(catalog), claims, environment.client)
    found, last, pages = [], None, []
    while True:
        request = ProviderCheckRequest(provider="local", after=last)
        page = await ActivityEnvironment().run(monitoring.find_lost_access, request)
        assert len(page.model_dump_json()) < 1024 * 1024
        found += [job.job_id for job in page.jobs]
        pages.append(len(page.jobs))
        last = page.last
        if last is None:
            break
    assert pages == [CLAIMS_PER_PAGE, 1]
    assert len(set(found)) == CLAIMS_PER_PAGE + 1


async def test_a_failed_cancel_does_not_block_the_others(
    orchestrator: Orchestrator, environment: WorkflowEnvironment
) -> None:
    job = await orchestrator.created()
    temporal: Client = environment.client
    monitoring = AccessCheckActivities(
        lambda: load(orchestrator.catalog), ClaimStore(orchestrator.engine), temporal
    )
    wanted = [JobToCancel(job_id=job_id, reason="lost") for job_id in ("", "unknown", job.id)]
    with pytest.raises(RPCError):
        await ActivityEnvironment().run(monitoring.cancel_jobs, JobsToCancel(jobs=wanted))
    await orchestrator.reached(job.id, JobState.CANCELING)
    await orchestrator.report(job.id, JobState.SUCCESS)
    assert await orchestrator.outcome(job.id) == "CANCELED"


async def test_a_draining_provider_gets_no_new_jobs(orchestrator: Orchestrator) -> None:
    running = await orchestrator.created()
    file = orchestrator.catalog / "catalog.yaml"
    before = file.read_text()
    file.write_text(before.replace("id: local\n", "id: local\ndraining: true\n", 1))
    assert file.read_text() != before

    async def rejection() -> JobRejected | None:
        try:
            await orchestrator.created()
        except JobRejected as error:
            return error
        return None

    rejected = await eventually(rejection)
    assert rejected is not None
    assert str(rejected) == "The provider local takes no new jobs at the moment."
    assert rejected.code is ErrorCode.PROVIDER_REJECTED
    await orchestrator.report(running.id, JobState.SUCCESS)
    assert (await orchestrator.jobs.wait(running.id)).status.state is JobState.SUCCESS


async def test_the_server_accepts_the_longest_description(orchestrator: Orchestrator) -> None:
    files = [{"type": "file", "path": f"/data/{'ø' * 500}{number}"} for number in range(100)]
    name = {"name": "å" * 255, "version": "æ" * 255}
    with pytest.raises(JobRejected) as rejected:
        await orchestrator.created(name="ø" * 200, application=name, resources=files)
    assert f"There is no application {name['name']}" in rejected.value.findings[0].message
