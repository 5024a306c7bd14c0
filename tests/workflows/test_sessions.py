"""The update `open_session`: permissions, rejections, and the content of the history."""

from __future__ import annotations

import json

import pytest
from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from client import Actor, JobClient, JobNotFound, RequestRefused
from tests.conftest import Orchestrator
from ucloud_orchestrator.models import ErrorCode, JobState, ResourceAclEntry
from ucloud_orchestrator.models.session import SessionType, ShellSession


async def test_a_running_job_opens_a_terminal(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    with pytest.raises(
        RequestRefused, match="The job is in state IN_QUEUE; sessions are for jobs that run"
    ):
        await orchestrator.jobs.open_session(job.id, SessionType.SHELL)
    await orchestrator.report(job.id, JobState.RUNNING)
    session = await orchestrator.jobs.open_session(job.id, SessionType.SHELL)
    assert session == ShellSession(job_id=job.id, rank=0, session_identifier="a-token")
    item = orchestrator.provider.items[-1]
    assert (item["sessionType"], item["rank"], len(item["challenge"])) == ("SHELL", 0, 64)
    await orchestrator.report(job.id, JobState.SUCCESS)
    await orchestrator.jobs.wait(job.id)


async def test_the_secret_of_a_session_never_reaches_temporal(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    await orchestrator.report(job.id, JobState.RUNNING)
    orchestrator.provider.sessions.append(
        {
            "type": "web",
            "jobId": job.id,
            "needsVerifier": True,
            "redirectClientTo": "https://p.example.com/?token=t",
        }
    )
    session = await orchestrator.jobs.open_session(job.id, SessionType.SHELL)
    address, _, verifier = session.to_wire()["redirectClientTo"].partition("&verifier=")
    assert address == "https://p.example.com/?token=t"
    assert len(verifier) > 40
    history = await orchestrator.handle(job.id).fetch_history()
    assert verifier not in json.dumps(history.to_json_dict())


@pytest.mark.parametrize(
    "request_", [None, {}, {"sessionType": "TELNET"}, {"sessionType": "SHELL", "rank": -1}, "SHELL"]
)
async def test_an_invalid_request_is_rejected(orchestrator: Orchestrator, request_: object) -> None:
    job = await orchestrator.created()
    await orchestrator.report(job.id, JobState.RUNNING)
    with pytest.raises(WorkflowUpdateFailedError) as rejected:
        await orchestrator.handle(job.id).execute_update("open_session", request_)
    assert isinstance(rejected.value.cause, ApplicationError)
    assert rejected.value.cause.type == ErrorCode.VERIFICATION_FAILED


async def test_an_unknown_rank_is_rejected(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    await orchestrator.report(job.id, JobState.RUNNING)
    with pytest.raises(RequestRefused, match="There is no rank 1") as rejected:
        await orchestrator.jobs.open_session(job.id, SessionType.SHELL, 1)
    assert rejected.value.code is ErrorCode.VERIFICATION_FAILED


async def test_an_unsupported_session_never_reaches_the_provider(
    orchestrator: Orchestrator,
) -> None:
    job = await orchestrator.created()
    await orchestrator.report(job.id, JobState.RUNNING)
    with pytest.raises(RequestRefused) as rejected:
        await orchestrator.jobs.open_session(job.id, SessionType.VNC)
    assert rejected.value.code is ErrorCode.FEATURE_NOT_SUPPORTED_BY_PROVIDER
    with pytest.raises(RequestRefused, match="has no interface of type WEB"):
        await orchestrator.jobs.open_session(job.id, SessionType.WEB)
    assert orchestrator.provider.calls_for(job.id) == ["create"]


async def test_only_those_who_may_change_a_job_open_sessions(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    await orchestrator.report(job.id, JobState.RUNNING)
    bob = JobClient(orchestrator.temporal, Actor(username="bob"))
    with pytest.raises(JobNotFound):
        await bob.open_session(job.id, SessionType.SHELL)
    reader = {"entity": {"type": "user", "username": "bob"}, "permissions": ["READ"]}
    await orchestrator.jobs.update_acl(job.id, [ResourceAclEntry.model_validate(reader)])
    with pytest.raises(RequestRefused, match="EDIT is needed"):
        await bob.open_session(job.id, SessionType.SHELL)
    await orchestrator.jobs.update_acl(
        job.id, [ResourceAclEntry.model_validate(reader | {"permissions": ["EDIT"]})]
    )
    assert (await bob.open_session(job.id, SessionType.SHELL)).job_id == job.id


async def test_an_answer_without_a_session_is_an_error(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    await orchestrator.report(job.id, JobState.RUNNING)
    orchestrator.provider.sessions.append({"type": "telepathy"})
    with pytest.raises(RequestRefused, match="gave no session that can be used") as rejected:
        await orchestrator.jobs.open_session(job.id, SessionType.SHELL)
    assert rejected.value.code is ErrorCode.PROVIDER_REJECTED
