"""Who acts, and how a worker is asked what only it can know."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any, TypeVar, overload

from temporalio.client import Client, WorkflowHandle

from client.errors import map_errors
from ucloud_orchestrator.models.base import ApiModel
from ucloud_orchestrator.models.job import JobOwner
from ucloud_orchestrator.models.messages import MembershipsAnswer, MembershipsRequest
from ucloud_orchestrator.models.workspace import Membership, Workspace
from ucloud_orchestrator.temporal import names

ANSWER_TIMEOUT = timedelta(seconds=15)
"""How long a worker may take to answer a question."""
MEMBERSHIP_CACHE_TTL = 10.0
"""How long a client believes what it was told of the actor's projects."""

Answer = TypeVar("Answer", bound=ApiModel)


class Actor(ApiModel):
    """Who acts: a user, in a project or in his personal workspace."""

    username: str
    project: str | None = None


class ActorClient:
    """A connection to Temporal for one actor."""

    def __init__(self, temporal: Client, actor: Actor) -> None:
        self._temporal = temporal
        self._actor = actor
        self._known_memberships: tuple[float, list[Membership]] | None = None

    @property
    def workspace(self) -> Workspace:
        """Where the actor works, which is who pays: his project, or himself."""
        return Workspace.of(JobOwner(created_by=self._actor.username, project=self._actor.project))

    def _handle(self, job_id: str) -> WorkflowHandle[Any, Any]:
        return self._temporal.get_workflow_handle(job_id)

    async def _memberships(self) -> list[Membership]:
        """The projects that the actor is in, asked for again after a while."""
        now = time.monotonic()
        if (
            self._known_memberships is None
            or now - self._known_memberships[0] > MEMBERSHIP_CACHE_TTL
        ):
            request = MembershipsRequest(username=self._actor.username)
            answer = await self._ask_worker(
                names.ACTIVITY_BROWSE_MEMBERSHIPS, request, MembershipsAnswer
            )
            self._known_memberships = (now, answer.memberships)
        return self._known_memberships[1]

    @overload
    async def _ask_worker(
        self, activity: str, request: ApiModel, answer_type: type[Answer], task_queue: str = ...
    ) -> Answer: ...
    @overload
    async def _ask_worker(
        self, activity: str, request: ApiModel, answer_type: None, task_queue: str = ...
    ) -> None: ...
    async def _ask_worker(
        self,
        activity: str,
        request: ApiModel,
        answer_type: type[Answer] | None,
        task_queue: str = names.TASK_QUEUE,
    ) -> Answer | None:
        """Ask a worker what only the store or a provider knows, by an activity without a
        workflow.
        """
        with map_errors():
            answer = await self._temporal.execute_activity(
                activity,
                request,
                id=f"{activity}-{names.new_job_id()}",
                task_queue=task_queue,
                schedule_to_close_timeout=ANSWER_TIMEOUT,
                result_type=answer_type,
            )
        return None if answer_type is None else answer_type.model_validate(answer)
