"""The connection to Temporal of one actor."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any, TypeVar, overload

from temporalio.client import Client, WorkflowExecutionDescription, WorkflowHandle

from client.errors import map_errors
from ucloud_orchestrator.models.base import ApiModel
from ucloud_orchestrator.models.job import JobOwner
from ucloud_orchestrator.models.messages import MembershipsAnswer, MembershipsRequest
from ucloud_orchestrator.models.workspace import Membership, Workspace
from ucloud_orchestrator.temporal import names

ANSWER_TIMEOUT = timedelta(seconds=15)
"""How long a worker may take to answer a query or an activity."""
MEMBERSHIP_CACHE_TTL = 10.0
"""Seconds."""

Answer = TypeVar("Answer", bound=ApiModel)


class Actor(ApiModel):
    """A user who acts in a project, or in their personal workspace if there is no project."""

    username: str
    project: str | None = None


class ActorConnection:
    def __init__(self, temporal: Client, actor: Actor) -> None:
        self.temporal = temporal
        self.actor = actor
        self._memberships: list[Membership] = []
        self._memberships_expire_at = 0.0

    @property
    def owner(self) -> JobOwner:
        return JobOwner(created_by=self.actor.username, project=self.actor.project)

    @property
    def workspace(self) -> Workspace:
        return Workspace.of(self.owner)

    def handle(self, job_id: str) -> WorkflowHandle[Any, Any]:
        return self.temporal.get_workflow_handle(job_id)

    async def memberships(self) -> list[Membership]:
        """Return the actor's memberships in projects; cached for `MEMBERSHIP_CACHE_TTL`."""
        if time.monotonic() > self._memberships_expire_at:
            request = MembershipsRequest(username=self.actor.username)
            answer = await self.execute_activity(
                names.ACTIVITY_BROWSE_MEMBERSHIPS, request, MembershipsAnswer
            )
            self._memberships = answer.memberships
            self._memberships_expire_at = time.monotonic() + MEMBERSHIP_CACHE_TTL
        return self._memberships

    async def is_member(self) -> bool:
        """Return whether the actor may act in this workspace."""
        return not self.actor.project or any(
            one.project == self.actor.project for one in await self.memberships()
        )

    @overload
    async def execute_activity(
        self, activity: str, request: ApiModel, answer_type: type[Answer], task_queue: str = ...
    ) -> Answer: ...
    @overload
    async def execute_activity(
        self, activity: str, request: ApiModel, answer_type: None, task_queue: str = ...
    ) -> None: ...
    async def execute_activity(
        self,
        activity: str,
        request: ApiModel,
        answer_type: type[Answer] | None,
        task_queue: str = names.TASK_QUEUE,
    ) -> Answer | None:
        """Execute an activity without a workflow: the store and the providers are behind workers.

        Raises `RequestRefused` or `Unreachable`.
        """
        with map_errors():
            answer = await self.temporal.execute_activity(
                activity,
                request,
                id=f"{activity}-{names.new_job_id()}",
                task_queue=task_queue,
                schedule_to_close_timeout=ANSWER_TIMEOUT,
                result_type=answer_type,
            )
        return None if answer_type is None else answer_type.model_validate(answer)


def is_owned_by(description: WorkflowExecutionDescription, owner: JobOwner) -> bool:
    found = {pair.key.name: pair.value for pair in description.typed_search_attributes}
    return (found.get(names.JOB_OWNER), found.get(names.JOB_PROJECT)) == (
        owner.created_by,
        owner.project,
    )
