"""Whatever is sent to a job's workflow, and whatever its provider's clock says: the job lives, and
ends normally.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import strategies as st
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.client import WorkflowUpdateFailedError
from temporalio.common import RawValue
from temporalio.service import RPCError

from tests.bad_input.payloads import almost, attempts, json_values
from tests.conftest import Orchestrator
from ucloud_orchestrator.models import JobState
from ucloud_orchestrator.models.job import SimpleDuration

pytestmark = pytest.mark.long

UPDATE = {
    "provider": "local",
    "updates": [
        {
            "state": "SUSPENDED",
            "status": "s",
            "outputFolder": "/o",
            "newTimeAllocation": 9000,
            "timestamp": 1,
        }
    ],
}
GOOD = {
    "extend": {"requestedTime": {"hours": 1}},
    "open_session": {"sessionType": "SHELL", "rank": 0, "challenge": "0" * 64},
    "charge": {"provider": "local", "charges": [{"chargeId": "c", "units": 1, "periods": 1}]},
    "rename": {"name": "n"},
    "update_acl": {
        "acl": [{"entity": {"type": "user", "username": "bob"}, "permissions": ["READ"]}]
    },
}


def raw(data: bytes, encoding: bytes = b"json/plain") -> RawValue:
    return RawValue(Payload(metadata={"encoding": encoding}, data=data))


HUGE = 1_000_000
"""Bytes; what is larger, the server keeps from updates (decision 0013), and above two megabytes
also from signals.
"""
LONG_NUMBER = pytest.param(10**4000, id="10**4000")
RAW: dict[str, RawValue] = {
    "nested": raw(b"[" * 100_000 + b"]" * 100_000),
    "nested in an update": raw(
        b'{"provider": "local", "updates": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}"
    ),
    "a million digits": raw(
        b'{"provider": "local", "updates": [{"timestamp": ' + b"9" * 10**6 + b"}]}"
    ),
    "no JSON": raw(b"{"),
    "no text": raw(b"\xff\xfe"),
    "half a character": raw(b'{"provider": "local", "updates": [{"status": "\\ud800"}]}'),
    "an unknown encoding": raw(b"x", b"something/else"),
    "no number": raw(b'{"provider": "local", "updates": [{"timestamp": NaN}]}'),
    "a megabyte of wrong updates": raw(
        b'{"provider": "local", "updates": [' + b"1," * (HUGE // 2) + b"1]}"
    ),
    "a megabyte of empty updates": raw(
        b'{"provider": "local", "updates": [' + b"{}," * (HUGE // 3) + b"{}]}"
    ),
    "a megabyte of a strange provider": raw(b'{"updates": [], "provider": "' + b"a" * HUGE + b'"}'),
    "a megabyte of a strange field": raw(
        b'{"provider": "local", "updates": [{"' + b"a" * HUGE + b'": 1, "state": 1}]}'
    ),
}


async def lives_and_ends(orchestrator: Orchestrator, job_id: str) -> None:
    """The job takes what is right, and ends normally."""
    await orchestrator.report(job_id, text="still well")
    await orchestrator.eventually_said(job_id, "still well", seconds=40)
    await orchestrator.report(job_id, JobState.SUCCESS, "done")
    ended = await orchestrator.jobs.wait(job_id)
    assert ended.status.state is JobState.SUCCESS
    assert await orchestrator.outcome(job_id) == "COMPLETED"
    assert await orchestrator.is_archived(ended)
    assert await failed_tasks(orchestrator, job_id) == []


async def failed_tasks(orchestrator: Orchestrator, job_id: str) -> list[str]:
    """Why tasks of the workflow failed in the worker."""
    history = await orchestrator.handle(job_id).fetch_history()
    failures = [
        event.workflow_task_failed_event_attributes
        for event in history.events
        if event.HasField("workflow_task_failed_event_attributes")
    ]
    # The server has tasks repeated, too, such as when a message comes while the job continues as
    # new.
    ours = (
        WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_WORKFLOW_WORKER_UNHANDLED_FAILURE,
        WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_NON_DETERMINISTIC_ERROR,
    )
    return [one.failure.message for one in failures if one.cause in ours]


@pytest.mark.parametrize("kind", RAW)
async def test_payloads_that_cannot_be_read_leave_the_job_as_it_was(
    orchestrator: Orchestrator, kind: str
) -> None:
    job = await orchestrator.created()
    handle = orchestrator.handle(job.id)
    await handle.signal("update", args=[RAW[kind]])
    for name in GOOD.keys() - {"rename"}:  # which needs nothing of its message
        with pytest.raises((WorkflowUpdateFailedError, RPCError)):
            await handle.execute_update(name, args=[RAW[kind]])
    after = await orchestrator.jobs.retrieve(job.id)
    assert (after.updates, after.specification) == (job.updates, job.specification)
    await lives_and_ends(orchestrator, job.id)


async def test_any_messages_leave_the_job_alive(orchestrator: Orchestrator) -> None:
    job = await orchestrator.created()
    handle = orchestrator.handle(job.id)
    # Nothing that is right by chance may end it, or change what it waits for.
    rejections: list[str] = []
    states = {"SUCCESS", "FAILURE", "EXPIRED"}

    async def check(messages: list[tuple[str, Any]]) -> None:
        for name, message in messages:
            if name == "update":
                if not any(state in json.dumps(message) for state in states):
                    await handle.signal("update", args=[message])
                continue
            try:
                await asyncio.wait_for(handle.execute_update(name, args=[message]), 30)
            except WorkflowUpdateFailedError as error:
                rejections.append(str(error.cause))
        assert (await handle.query("job"))["id"] == job.id
        assert all(text.isprintable() and len(text) < 30_000 for text in rejections), rejections

    updates = st.sampled_from(list(GOOD)).flatmap(
        lambda name: st.tuples(st.just(name), almost(GOOD[name]) | json_values)
    )
    signals = st.tuples(st.just("update"), almost(UPDATE) | json_values)
    await attempts(st.lists(updates | signals, min_size=1, max_size=8), check, 16)
    await lives_and_ends(orchestrator, job.id)


@pytest.mark.parametrize(
    "timestamp", [-1, -(10**18), 10**18, LONG_NUMBER, "an hour ahead", "an hour behind"]
)
async def test_a_providers_clock_moves_nothing(
    orchestrator: Orchestrator, timestamp: int | str
) -> None:
    job = await orchestrator.created(timeAllocation={"hours": 1})
    if isinstance(timestamp, str):
        timestamp = job.created_at + (3_600_000 if "ahead" in timestamp else -3_600_000)
    message = {"provider": "local", "updates": [{"timestamp": timestamp, "state": "RUNNING"}]}
    await orchestrator.handle(job.id).signal("update", args=[message])
    running = await orchestrator.reached(job.id, JobState.RUNNING)
    started, expires = running.status.started_at, running.status.expires_at
    assert started is not None
    assert expires == started + 3_600_000
    assert 0 <= started - job.created_at < 60_000
    assert [update.timestamp for update in running.updates] == [job.created_at, started]
    await lives_and_ends(orchestrator, job.id)


@pytest.mark.parametrize("allocation", [0, -1, 10**18, LONG_NUMBER, 1.5, "x", None])
async def test_only_an_allocation_that_the_specification_allows_moves_the_end(
    orchestrator: Orchestrator, allocation: Any
) -> None:
    job = await orchestrator.created(timeAllocation={"hours": 1})
    await orchestrator.report(job.id, JobState.RUNNING)
    running = await orchestrator.reached(job.id, JobState.RUNNING)
    message = {
        "provider": "local",
        "updates": [{"newTimeAllocation": allocation, "status": "longer"}],
    }
    with suppress(RPCError):
        await orchestrator.handle(job.id).signal("update", args=[message])
    await orchestrator.report(job.id, text="and now")
    after = await orchestrator.eventually_said(job.id, "and now")
    assert after.status.expires_at == running.status.expires_at
    await lives_and_ends(orchestrator, job.id)


async def test_an_allocation_below_a_second_is_one_and_the_job_can_be_read(
    orchestrator: Orchestrator,
) -> None:
    job = await orchestrator.created(timeAllocation={"hours": 1})
    message = {"provider": "local", "updates": [{"newTimeAllocation": 1, "status": "shorter"}]}
    await orchestrator.handle(job.id).signal("update", args=[message])
    after = await orchestrator.eventually_said(job.id, "shorter")
    assert after.specification.time_allocation == SimpleDuration(seconds=1)
    await lives_and_ends(orchestrator, job.id)
