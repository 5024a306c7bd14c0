"""Visibility queries, as text and at a real Temporal server."""

from __future__ import annotations

import pytest
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.testing import WorkflowEnvironment

from tests.waiting import eventually
from ucloud_orchestrator.temporal import names, queries

ORDINARY = ["plain", "o'neill", "a' OR '1'='1", "a_b", "50%"]
SPECIAL = ["back\\slash", "ends\\", "\\'", "\\' OR 1=1 --", '"double"', "a\nb"]
"""Temporal 1.32 finds none of these in SQLite, where it escapes them with backslashes."""


def test_a_query_joins_its_conditions() -> None:
    query = queries.running_jobs(
        queries.equals("JobProvider", "local"),
        queries.one_of("JobState", ["RUNNING", "SUSPENDED"]),
        queries.is_unset("JobProject"),
        queries.is_set("TemporalReportedProblems"),
        queries.ids_from_to("a", "b"),
        queries.ids_before("c"),
    )
    assert query == (
        "WorkflowType = 'Job' AND ExecutionStatus = 'Running' AND JobProvider = 'local' "
        "AND JobState IN ('RUNNING', 'SUSPENDED') AND JobProject IS NULL "
        "AND TemporalReportedProblems IS NOT NULL AND WorkflowId >= 'a' AND WorkflowId <= 'b' "
        "AND WorkflowId < 'c'"
    )


@pytest.mark.parametrize(
    ("value", "quoted"),
    [("o'neill", r"'o\'neill'"), ("a\\", r"'a\\'"), (r"\'", r"'\\\''")],
)
def test_quotes_and_backslashes_are_escaped_everywhere(value: str, quoted: str) -> None:
    for condition in (
        queries.equals("JobName", value),
        queries.one_of("JobName", [value]),
        queries.ids_before(value),
    ):
        assert quoted in condition
    assert queries.ids_from_to(value, value).count(quoted) == 2


async def test_a_value_finds_its_own_job_and_no_other(environment: WorkflowEnvironment) -> None:
    temporal, key = environment.client, SearchAttributeKey.for_keyword(names.JOB_NAME)
    handles = {
        name: await temporal.start_workflow(
            names.WORKFLOW,
            id=names.new_job_id(),
            task_queue="a-queue-without-workers",
            search_attributes=TypedSearchAttributes([SearchAttributePair(key, name)]),
        )
        for name in [*ORDINARY, *SPECIAL]
    }

    async def find_ids(*conditions: str) -> list[str]:
        query = queries.running_jobs(*conditions)
        return sorted([job.id async for job in temporal.list_workflows(query)])

    ids = sorted(handle.id for handle in handles.values())
    try:

        async def are_all_visible() -> bool:
            return await find_ids(queries.ids_from_to(ids[0], ids[-1])) == ids

        await eventually(are_all_visible)
        for name in ORDINARY:
            assert await find_ids(queries.equals(names.JOB_NAME, name)) == [handles[name].id]
        for name in SPECIAL:
            assert set(await find_ids(queries.equals(names.JOB_NAME, name))) <= {handles[name].id}
        ordinary_ids = sorted(handles[name].id for name in ORDINARY)
        assert await find_ids(queries.one_of(names.JOB_NAME, ORDINARY)) == ordinary_ids
        assert await find_ids(queries.is_set(names.JOB_NAME), queries.ids_before(ids[1])) == ids[:1]
        assert not await find_ids(
            queries.is_unset(names.JOB_NAME), queries.ids_from_to(ids[0], ids[-1])
        )
    finally:
        for handle in handles.values():
            await handle.terminate()
