"""Build the documents that tests send: jobs, and what they refer to."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from ucloud_orchestrator.models import (
    Application,
    Job,
    JobOwner,
    JobSpecification,
    JobState,
    JobStatus,
    Tool,
)
from ucloud_orchestrator.temporal.names import new_job_id

Document = dict[str, Any]


def product(category: str = "cpu", provider: str = "local") -> Document:
    """Return a reference to the first product of the category."""
    return {"id": f"{category}-1", "category": category, "provider": provider}


CPU, PAID = product(), product("paid")


def resolved_product(reference: Document = CPU, **changes: Any) -> Document:
    """Return a product as it is sent to its provider."""
    category = {"name": reference["category"], "provider": reference["provider"]}
    return {"name": reference["id"], "category": category} | changes


def integer(value: int) -> Document:
    return {"type": "integer", "value": value}


def text(value: str) -> Document:
    return {"type": "text", "value": value}


def file(path: str, **changes: Any) -> Document:
    return {"type": "file", "path": path} | changes


def application_document(**changes: Any) -> Document:
    """Return an application without parameters."""
    described = {"title": "t", "name": "a", "version": "1", "authors": [], "description": ""}
    called = {"tool": {"name": "t", "version": "1"}, "invocation": ["a"], "parameters": {}}
    return described | called | changes


def application(**changes: Any) -> Application:
    return Application.model_validate(application_document(**changes))


def tool_document(**changes: Any) -> Document:
    described = {"title": "t", "name": "t", "version": "1", "authors": [], "description": ""}
    return described | {"backend": "NATIVE", "defaultMaxTime": {"hours": 1}} | changes


def tool(**changes: Any) -> Tool:
    return Tool.model_validate(tool_document(**changes))


def specification_document(application: str = "a", version: str = "1", **changes: Any) -> Document:
    """Return what a user asks for; `changes` are fields of it."""
    reference = {"name": application, "version": version}
    # A copy: tests change parts of what they have built.
    return deepcopy({"application": reference, "product": CPU} | changes)


def specification(application: str = "a", version: str = "1", **changes: Any) -> JobSpecification:
    return JobSpecification.model_validate(specification_document(application, version, **changes))


def job(
    job_id: str = "1",
    state: JobState = JobState.RUNNING,
    asked: JobSpecification | None = None,
    owner: JobOwner | None = None,
    **changes: Any,
) -> Job:
    """Return a job in that state; `changes` are fields of `Job`."""
    fields = {
        "id": job_id,
        "owner": owner or JobOwner(created_by="alice"),
        "specification": asked or specification(),
        "status": JobStatus(state=state),
        "created_at": 1,
    }
    return Job(**fields | changes)


def shell_job(
    script: str, replicas: int = 1, status: Document | None = None, **changes: Any
) -> Document:
    """Return a job as it is sent to its provider, whose replicas run a script of `sh`.

    `status` are more fields of its status, `changes` are fields of its specification.
    """
    file_parameter = {"type": "input_file", "optional": True}
    resolved = {
        "application": application_document(
            invocation=["sh", "-c", script],
            allowMultiNode=True,
            parameters={"input": file_parameter, "more": file_parameter},
        ),
        "tool": tool_document(),
    }
    asked = {"replicas": replicas, "timeAllocation": {"hours": 1}} | changes
    return {
        "id": new_job_id(),
        "owner": {"createdBy": "alice"},
        "createdAt": 1,
        "specification": specification_document(**asked),
        "status": {"state": "IN_QUEUE", "resolvedApplication": resolved} | (status or {}),
    }
