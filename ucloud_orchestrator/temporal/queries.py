"""Temporal visibility queries for jobs. Every value is quoted here."""

from __future__ import annotations

from collections.abc import Iterable

from ucloud_orchestrator.temporal.names import WORKFLOW


def running_jobs(*conditions: str) -> str:
    """Return the query for jobs whose workflows run and that meet every condition."""
    return " AND ".join(
        (equals("WorkflowType", WORKFLOW), "ExecutionStatus = 'Running'", *conditions)
    )


def equals(attribute: str, value: str) -> str:
    return f"{attribute} = {_quote(value)}"


def one_of(attribute: str, values: Iterable[str]) -> str:
    """Return the condition that a search attribute has one of these values, of which there is at
    least one.
    """
    return f"{attribute} IN ({', '.join(map(_quote, values))})"


def is_unset(attribute: str) -> str:
    return f"{attribute} IS NULL"


def is_set(attribute: str) -> str:
    return f"{attribute} IS NOT NULL"


def ids_from_to(first: str, last: str) -> str:
    """Return the condition that a workflow id is in this range, both ends included."""
    return f"WorkflowId >= {_quote(first)} AND WorkflowId <= {_quote(last)}"


def ids_before(job_id: str) -> str:
    """Return the condition that a workflow id is smaller: the job is older."""
    return f"WorkflowId < {_quote(job_id)}"


def _quote(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
