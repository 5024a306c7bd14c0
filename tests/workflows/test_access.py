"""Access to jobs and resources, and the limits of sizes, on the real server."""

from __future__ import annotations

from typing import Any

import pytest

from client import (
    Actor,
    JobClient,
    JobClosed,
    JobNotFound,
    JobRejected,
    ProviderClient,
    RequestRefused,
)
from tests.conftest import Orchestrator
from tests.databases import KINDS
from tests.waiting import eventually
from ucloud_orchestrator.models import (
    ErrorCode,
    Job,
    JobSpecification,
    JobState,
    JobUpdate,
    ResourceAclEntry,
    SimpleDuration,
)
from ucloud_orchestrator.models.job import Permission, ProjectGroupEntity, UserEntity
from ucloud_orchestrator.models.messages import JobRequest
from ucloud_orchestrator.temporal.names import TASK_QUEUE

SERVER = {"name": "server", "version": "1"}
LINK = {"type": "ingress", "id": "app-link"}
OCEAN = "ocean"


def client(orchestrator: Orchestrator, username: str, project: str | None = None) -> JobClient:
    return JobClient(orchestrator.temporal, Actor(username=username, project=project))


def server(orchestrator: Orchestrator, **changes: Any) -> JobSpecification:
    return orchestrator.specification(**({"application": SERVER, "parameters": {}} | changes))


async def rejected(jobs: JobClient, specification: JobSpecification) -> JobRejected:
    with pytest.raises(JobRejected) as rejection:
        await jobs.create(specification)
    return rejection.value


async def test_a_stranger_finds_nothing(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    stranger = client(orchestrator, "mallory")
    for asking in (
        stranger.retrieve(job.id),
        stranger.wait(job.id),
        stranger.cancel(job.id),
        stranger.extend(job.id, SimpleDuration(hours=1)),
        stranger.suspend(job.id),
        stranger.rename(job.id, "Mine"),
        stranger.update_acl(job.id, []),
        anext(stranger.follow(job.id)),
    ):
        with pytest.raises(JobNotFound):
            await asking
    assert await stranger.browse() == []
    taken = await stranger_create(stranger, job, orchestrator)
    assert taken.code is ErrorCode.DUPLICATE_JOB
    assert (await orchestrator.jobs.retrieve(job.id)).status.state is JobState.IN_QUEUE


async def stranger_create(stranger: JobClient, job: Job, orchestrator: Orchestrator) -> JobRejected:
    with pytest.raises(JobRejected) as rejection:
        await stranger.create(orchestrator.specification(), job.id)
    return rejection.value


async def test_an_access_list_grants_access_to_others(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    bob = client(orchestrator, "bob")
    await orchestrator.jobs.update_acl(
        job.id, [ResourceAclEntry(entity=UserEntity(username="bob"), permissions=[Permission.READ])]
    )
    seen = await bob.retrieve(job.id)
    assert seen.permissions is not None
    assert (seen.permissions.myself, seen.acl) == ([Permission.READ], None)
    with pytest.raises(RequestRefused) as rejection:
        await bob.cancel(job.id)
    assert rejection.value.code is ErrorCode.FORBIDDEN
    group = ProjectGroupEntity(project_id=OCEAN, group="readers")
    await orchestrator.jobs.update_acl(
        job.id, [ResourceAclEntry(entity=group, permissions=[Permission.EDIT])]
    )
    with pytest.raises(JobNotFound):
        await bob.retrieve(job.id)
    await client(orchestrator, "dave").rename(job.id, "Renamed")
    assert (await orchestrator.jobs.retrieve(job.id)).specification.name == "Renamed"
    with pytest.raises(RequestRefused):
        await orchestrator.jobs.update_acl("no-such-job", [])


async def test_a_project_sees_its_jobs_by_role(orchestrator: Orchestrator) -> None:
    bob, carol, dave = (client(orchestrator, name, OCEAN) for name in ("bob", "carol", "dave"))
    jobs = [await bob.create(orchestrator.specification()) for _ in range(3)]
    ended = jobs.pop()
    await orchestrator.report(ended.id, JobState.SUCCESS)
    await bob.wait(ended.id)
    ids = sorted([job.id for job in [*jobs, ended]], reverse=True)
    assert [job.id for job in await bob.browse()] == ids
    assert [job.id for job in await carol.browse(limit=2)] == ids[:2]
    assert await dave.browse() == []
    assert await client(orchestrator, "mallory", OCEAN).browse() == []
    assert await client(orchestrator, "bob").browse() == []
    with pytest.raises(RequestRefused):
        await client(orchestrator, "mallory", OCEAN).wallets()
    await carol.cancel(jobs[0].id)
    await orchestrator.report(jobs[0].id, JobState.SUCCESS)
    await bob.wait(jobs[0].id)
    rejection = await rejected(client(orchestrator, "mallory", OCEAN), orchestrator.specification())
    assert rejection.code is ErrorCode.FORBIDDEN


@pytest.mark.parametrize("database_kind", KINDS)
async def test_a_link_belongs_to_one_job_until_it_ends(orchestrator: Orchestrator) -> None:
    first = await orchestrator.jobs.create(server(orchestrator, resources=[LINK]))
    sent = next(item for item in orchestrator.provider.items if item["id"] == first.id)
    assert sent["status"]["resolvedLinks"] == {"app-link": "app.example.com"}
    rejection = await rejected(orchestrator.jobs, server(orchestrator, resources=[LINK]))
    assert rejection.code is ErrorCode.RESOURCE_IN_USE
    assert f"in use by the job {first.id}" in str(rejection)
    assert await orchestrator.jobs.holder("ingress", "app-link") == first.id
    with pytest.raises(RequestRefused):
        await client(orchestrator, "bob").holder("ingress", "app-link")
    foreign = await rejected(client(orchestrator, "bob"), server(orchestrator, resources=[LINK]))
    assert foreign.code is ErrorCode.NOT_FOUND
    await orchestrator.report(first.id, JobState.FAILURE)
    await orchestrator.jobs.wait(first.id)
    assert await orchestrator.jobs.holder("ingress", "app-link") is None
    orchestrator.provider.answers["create"] = [400]
    assert (
        await rejected(orchestrator.jobs, server(orchestrator, resources=[LINK]))
    ).code is ErrorCode.PROVIDER_REJECTED
    second = await orchestrator.jobs.create(server(orchestrator, resources=[LINK]))
    assert second.id != first.id


async def test_a_license_reaches_the_provider_and_no_history(orchestrator: Orchestrator) -> None:
    license_ = {"type": "license_server", "id": "alices-license"}
    job = await orchestrator.jobs.create(server(orchestrator, parameters={"license": license_}))
    sent = next(item for item in orchestrator.provider.items if item["id"] == job.id)
    assert sent["status"]["resolvedLicenses"] == {
        "alices-license": "license.example.com:27000/a-secret-key"
    }
    history = await orchestrator.handle(job.id).fetch_history()
    assert "a-secret-key" not in history.to_json()
    assert all(b"a-secret-key" not in event.SerializeToString() for event in history.events)
    again = await orchestrator.jobs.create(server(orchestrator, parameters={"license": license_}))
    assert again.id != job.id


async def test_a_peer_must_run_in_the_same_workspace(orchestrator: Orchestrator) -> None:
    database = await orchestrator.created()
    peers = [{"type": "peer", "hostname": "database", "jobId": database.id}]
    assert "it must be RUNNING" in str(
        await rejected(orchestrator.jobs, server(orchestrator, resources=peers))
    )
    await orchestrator.report(database.id, JobState.RUNNING)
    await orchestrator.reached(database.id, JobState.RUNNING)
    await orchestrator.jobs.create(server(orchestrator, resources=peers))
    foreign = await rejected(client(orchestrator, "bob"), server(orchestrator, resources=peers))
    assert f"There is no job {database.id}" in str(foreign)


async def test_a_file_is_read_only_without_write_permission(orchestrator: Orchestrator) -> None:
    value = {"type": "file", "path": "/alices/data.csv"}
    bob = client(orchestrator, "bob")
    job = await bob.create(server(orchestrator, parameters={"file": value}))
    assert job.specification.to_wire()["parameters"]["file"]["readOnly"] is True
    assert (
        await rejected(
            client(orchestrator, "carol"), server(orchestrator, parameters={"file": value})
        )
    ).code is (ErrorCode.NOT_FOUND)


async def test_another_provider_changes_nothing(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    await ProviderClient(orchestrator.temporal, "other").update(
        job.id, [JobUpdate(state=JobState.SUCCESS)]
    )
    await orchestrator.report(job.id, JobState.RUNNING)
    assert (await orchestrator.reached(job.id, JobState.RUNNING)).updates[
        -1
    ].state is JobState.RUNNING
    with pytest.raises(JobClosed):
        await ProviderClient(orchestrator.temporal, "other").retrieve(job.id)
    assert (await orchestrator.reports.retrieve(job.id)).id == job.id
    others = [
        job_id async for job_id in ProviderClient(orchestrator.temporal, "other").browse_open_jobs()
    ]
    assert job.id not in others


async def test_the_same_job_twice_must_be_allowed(orchestrator: Orchestrator) -> None:
    twice = orchestrator.specification(allowDuplicateJob=False)
    first = await orchestrator.jobs.create(twice)
    rejection = await rejected(orchestrator.jobs, twice)
    assert (rejection.code, first.id in str(rejection)) == (ErrorCode.DUPLICATE_JOB, True)
    await orchestrator.report(first.id, JobState.SUCCESS)
    await orchestrator.jobs.wait(first.id)
    assert (await orchestrator.jobs.create(twice)).id != first.id


async def test_fifteen_mistakes_get_fifteen_sentences(orchestrator: Orchestrator) -> None:
    values = {"text": {"type": "integer", "value": 1}} | {
        f"none-{number}": {"type": "text", "value": "x"} for number in range(3)
    }
    resources = [
        {"type": "text", "value": "not a resource"},
        {"type": "file", "path": "/nowhere/file"},
        {"type": "file", "path": "/elsewhere/file"},
        {"type": "ingress", "id": "no-link"},
        {"type": "network", "id": "no-ip"},
        {"type": "peer", "hostname": "same", "jobId": "no-job"},
        {"type": "peer", "hostname": "same", "jobId": "no-other-job"},
    ]
    wrong = orchestrator.specification(
        replicas=2, parameters=values, resources=resources, sshEnabled=True
    )
    rejection = await rejected(orchestrator.jobs, wrong)
    sentences = {finding.message for finding in rejection.findings}
    assert len(sentences) >= 15
    assert all(sentence.endswith(".") for sentence in sentences)
    fields = {finding.field for finding in rejection.findings}
    assert fields >= {
        "replicas",
        "sshEnabled",
        "parameters.text",
        *(f"resources[{number}]" for number in range(7)),
    }


async def test_a_request_too_large_for_a_message_is_rejected(orchestrator: Orchestrator) -> None:
    def text(size: int) -> JobSpecification:
        return orchestrator.specification(
            parameters={"text": {"type": "text", "value": size * "x"}}
        )

    job = await orchestrator.jobs.create(text(250_000))
    assert orchestrator.provider.calls_for(job.id) == ["create"]
    assert "put data into files" in str(await rejected(orchestrator.jobs, text(300_000)))
    with pytest.raises(JobRejected):
        await orchestrator.jobs.create_many([text(250_000)] * 5)
    # The check of the client can be bypassed; the worker checks too.
    request = JobRequest(owner=job.owner, specification=text(300_000))
    handle = await orchestrator.temporal.start_workflow(
        "Job", request, id=orchestrator.jobs.new_job_id(), task_queue=TASK_QUEUE
    )
    assert await orchestrator.outcome(handle.id) == "FAILED"


async def test_a_former_member_sees_nothing_by_an_old_id(orchestrator: Orchestrator) -> None:
    bob = client(orchestrator, "bob", OCEAN)
    job = await bob.create(orchestrator.specification())
    file = orchestrator.catalog / "workspaces.yaml"
    file.write_text(file.read_text().replace("  - {username: bob}\n", ""))

    async def has_left() -> bool:
        return not await client(orchestrator, "bob", OCEAN).browse()

    await eventually(has_left)
    with pytest.raises(JobNotFound):
        await client(orchestrator, "bob", OCEAN).create(orchestrator.specification(), job.id)


async def test_an_access_list_has_a_maximum_size(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    entry = ResourceAclEntry(
        entity=UserEntity(username="b" * 70_000), permissions=[Permission.READ]
    )
    with pytest.raises(RequestRefused) as rejection:
        await orchestrator.jobs.update_acl(job.id, [entry])
    assert "65536 bytes at most" in str(rejection.value)
