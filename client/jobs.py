"""`JobClient`: how users' programs start jobs, watch them and stop them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Literal, TypeVar, overload

from pydantic import ValidationError
from temporalio.client import Client, WithStartWorkflowOperation, WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError

from client.errors import JobClosed, JobNotFound, JobRejected, OrchestratorError, RequestRefused, translated
from models import names
from models.access import for_reader
from models.connection import connect_to_temporal
from models.errors import MAXIMUM_SENTENCE, ErrorCode
from models.job import (
    Job,
    JobOwner,
    JobSpecification,
    JobState,
    JobUpdate,
    Permission,
    ResourceAclEntry,
    SimpleDuration,
)
from models.limits import size_findings
from models.messages import (
    MAXIMUM_BATCH,
    AclRequest,
    ArchiveAnswer,
    ArchiveRequest,
    BatchedJob,
    BatchRequest,
    BrowseAnswer,
    BrowseRequest,
    ExtendRequest,
    GrantRequest,
    HolderAnswer,
    HolderRequest,
    JobRequest,
    MembershipsAnswer,
    MembershipsRequest,
    RenameRequest,
    WalletsAnswer,
    WalletsRequest,
)
from models.product import ProductCategory
from models.search_attributes import initial_search_attributes
from models.wire import WireModel, sentences
from models.workspace import Membership, Workspace

FOLLOW_INTERVAL = 0.5
"""Seconds between two looks at a followed job, as in UCloud's own `follow`."""
ANSWER_PATIENCE = timedelta(seconds=15)
"""How long a worker may take to answer a question."""
MEMBERSHIP_SECONDS = 10.0
"""How long a client believes what it was told of the actor's projects."""
_ACCEPTED_UPDATE_ID = "accepted"

Answer = TypeVar("Answer", bound=WireModel)


class Actor(WireModel):
    """Who acts: a user, in a project or in his personal workspace."""

    username: str
    project: str | None = None


class JobFilter(WireModel):
    """Which jobs `browse` gives: all that match every field that is set."""

    state: JobState | None = None
    provider: str | None = None
    application: str | None = None
    """As `name@version`."""
    created_by: str | None = None


class JobClient:
    """A user's connection to the orchestrator.

    >>> jobs = await JobClient.connect(Actor(username="alice"))
    >>> job = await jobs.create(JobSpecification.model_validate({...}))
    >>> job = await jobs.wait(job.id)
    """

    def __init__(self, temporal: Client, actor: Actor) -> None:
        self._temporal = temporal
        self._actor = actor
        self._known_memberships: tuple[float, list[Membership]] | None = None

    @classmethod
    async def connect(cls, actor: Actor, address: str | None = None, namespace: str | None = None) -> JobClient:
        """Connect to Temporal; what is not given comes from Temporal's environment variables. Raises `Unreachable`."""
        with translated():
            return cls(await connect_to_temporal(address, namespace), actor)

    async def create(
        self, specification: JobSpecification, job_id: str | None = None, patience: timedelta | None = None
    ) -> Job:
        """Start a job and wait until its provider has accepted it.

        With the same `job_id` (see `new_job_id`) the call can be repeated whatever broke in between: there is one job.
        `patience` is how long to wait; the job goes on without the caller.

        Raises `JobRejected` with a code and all findings, or `Unreachable`, after which a repeat is right.
        """
        _refuse_too_much([specification])
        job_id = job_id or self.new_job_id()
        owner = JobOwner(created_by=self._actor.username, project=self._actor.project)
        attributes = [
            SearchAttributePair(SearchAttributeKey.for_keyword(name), value)
            for name, value in initial_search_attributes(owner, specification).items()
        ]
        start: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(
            names.WORKFLOW,
            JobRequest(owner=owner, specification=specification),
            id=job_id,
            task_queue=names.TASK_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            search_attributes=TypedSearchAttributes(attributes),
            static_summary=f"{specification.application} for {owner.created_by}",
        )
        _look_at_errors_of(start)
        try:
            with translated(refused=JobRejected):
                answer = await self._temporal.execute_update_with_start_workflow(
                    names.UPDATE_ACCEPTED,
                    start_workflow_operation=start,
                    id=_ACCEPTED_UPDATE_ID,
                    result_type=dict,
                    rpc_timeout=patience,
                )
            job = Job.model_validate(answer)
        except WorkflowAlreadyStartedError:
            job = await self.retrieve(job_id)
        if job.owner != owner:
            raise JobRejected(ErrorCode.DUPLICATE_JOB, f"The id {job_id} is taken by another job.")
        job = await self._for_reader(job)
        if not _may(job, Permission.READ):  # the repeat of somebody who has left the project meanwhile
            raise JobNotFound(job_id)
        return job

    async def create_many(
        self,
        specifications: Sequence[JobSpecification],
        batch_id: str | None = None,
        patience: timedelta | None = None,
    ) -> list[Job]:
        """Start several jobs: all or none, whatever happens to the caller, and also across providers.

        With the same `batch_id` (see `new_job_id`) the call can be repeated. Raises `JobRejected` with all findings,
        each with the place of its job, or `Unreachable`, after which a repeat is right.
        """
        _refuse_too_much(specifications)
        batch_id = batch_id or self.new_job_id()
        owner = JobOwner(created_by=self._actor.username, project=self._actor.project)
        try:
            jobs = [
                BatchedJob(job_id=f"{batch_id}-{number:03}", specification=specification)
                for number, specification in enumerate(specifications)
            ]
            request = BatchRequest(owner=owner, jobs=jobs)
        except ValidationError as error:
            message = f"A batch has 1 to {MAXIMUM_BATCH} jobs, not {len(specifications)}."
            raise JobRejected(ErrorCode.VERIFICATION_FAILED, message) from error
        start: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(
            names.BATCH_WORKFLOW,
            request,
            id=f"batch-{batch_id}",
            task_queue=names.TASK_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            static_summary=f"{len(jobs)} jobs for {owner.created_by}",
        )
        _look_at_errors_of(start)
        try:
            with translated(refused=JobRejected):
                job_ids = await self._temporal.execute_update_with_start_workflow(
                    names.UPDATE_ACCEPTED,
                    start_workflow_operation=start,
                    id=_ACCEPTED_UPDATE_ID,
                    result_type=list[str],
                    rpc_timeout=patience,
                )
        except WorkflowAlreadyStartedError:
            with translated(refused=JobRejected):
                handle = self._temporal.get_workflow_handle(f"batch-{batch_id}", result_type=list[str])
                job_ids = await handle.result()
        return list(await asyncio.gather(*map(self.retrieve, job_ids)))

    async def retrieve(self, job_id: str) -> Job:
        """The job as it is now, with all its updates: from its workflow, or from the archive. Raises `JobNotFound`."""
        job = await self._for_reader(await self._retrieve(job_id))
        if not _may(job, Permission.READ):
            raise JobNotFound(job_id)
        return job

    async def browse(self, filters: JobFilter | None = None, limit: int = 50, before: str | None = None) -> list[Job]:
        """One page of the actor's jobs, newest first, without their updates.

        `before` is the id of the last job of the page before. Live jobs come from Temporal, ended ones from the
        archive.
        """
        filters = filters or JobFilter()
        if self._actor.project and not any(one.project == self._actor.project for one in await self._memberships()):
            return []
        seen: list[Job] = []
        while True:
            live = await self._browse_live(filters, limit, before)
            ended = await self._browse_archive(filters, limit, before)
            jobs = {job.id: job for job in [*live, *ended]}
            page = sorted(jobs.values(), key=lambda job: job.id, reverse=True)[:limit]
            seen += [job for job in [await self._for_reader(job) for job in page] if _may(job, Permission.READ)]
            if len(page) < limit or len(seen) >= limit:
                return seen[:limit]
            before = page[-1].id

    async def follow(self, job_id: str) -> AsyncIterator[Job]:
        """The job now, and again each time that something has changed, until it has ended."""
        seen: Job | None = None
        while True:
            job = await self.retrieve(job_id)
            if job != seen:
                yield job
                seen = job
            if job.status.state.is_terminal:
                return
            await asyncio.sleep(FOLLOW_INTERVAL)

    async def wait(self, job_id: str) -> Job:
        """Wait until the job has ended and everything that it held is free, and get it. Raises `JobNotFound`."""
        await self._require(job_id, Permission.READ)
        with suppress(OrchestratorError), translated():
            # However the workflow ends, the job says how the job ended.
            await self._handle(job_id).result()
        return [job async for job in self.follow(job_id)][-1]

    async def cancel(self, job_id: str, reason: str = "") -> None:
        """Ask for the end of a job. Cancelling one that has ended has no effect.

        Raises `JobNotFound`, or `RequestRefused` if the reason is longer than a sentence.
        """
        if len(reason) > MAXIMUM_SENTENCE:
            text = f"The reason must have at most {MAXIMUM_SENTENCE} characters, not {len(reason)}."
            raise RequestRefused(ErrorCode.VERIFICATION_FAILED, text)
        await self._require(job_id, Permission.EDIT)
        try:
            with translated():
                await self._handle(job_id).cancel(reason=reason or f"by {self._actor.username}")
        except JobClosed:
            await self.retrieve(job_id)

    async def extend(self, job_id: str, requested_time: SimpleDuration) -> None:
        """Add to the job's time allocation. Raises `RequestRefused`, or `JobClosed` if the job has ended."""
        await self._update(job_id, names.UPDATE_EXTEND, ExtendRequest(requested_time=requested_time))

    async def suspend(self, job_id: str) -> None:
        """Have the provider hold the job. Raises `RequestRefused`, or `JobClosed` if the job has ended."""
        await self._update(job_id, names.UPDATE_SUSPEND)

    async def unsuspend(self, job_id: str) -> None:
        """Have the provider go on with a suspended job. Raises `RequestRefused`, or `JobClosed` if it has ended."""
        await self._update(job_id, names.UPDATE_UNSUSPEND)

    async def rename(self, job_id: str, name: str | None) -> None:
        """Give a live job another name. Raises `RequestRefused`, or `JobClosed` if the job has ended."""
        await self._update(job_id, names.UPDATE_RENAME, _request(RenameRequest, name=name))

    async def update_acl(self, job_id: str, acl: Sequence[ResourceAclEntry]) -> None:
        """Set who else may read, change or share a live job. Raises `RequestRefused`, or `JobClosed`."""
        await self._update(job_id, names.UPDATE_ACL, _request(AclRequest, acl=list(acl)), Permission.ADMIN)

    async def wallets(self, movements: int = 0) -> WalletsAnswer:
        """The wallets that pay for the actor's jobs, with that many of the newest lines of their ledger.

        Raises `RequestRefused` if the actor is not a member of the project.
        """
        if self._actor.project and not any(one.project == self._actor.project for one in await self._memberships()):
            message = f"{self._actor.username} is not a member of a project {self._actor.project}."
            raise RequestRefused(ErrorCode.FORBIDDEN, message)
        return await self._ask_worker(
            names.ACTIVITY_BROWSE_WALLETS, WalletsRequest(owner=self.workspace, movements=movements), WalletsAnswer
        )

    async def grant(self, owner: Workspace, category: ProductCategory, amount: int, note: str = "") -> None:
        """Put credits into a wallet. Every call is a grant of its own.

        Raises `RequestRefused`, with `FORBIDDEN` if the actor is not an operator.
        """
        request = GrantRequest(
            grant_id=names.new_job_id(),
            granted_by=self._actor.username,
            owner=owner,
            category=category,
            amount=amount,
            note=note,
        )
        await self._ask_worker(names.ACTIVITY_GRANT, request, None)

    async def holder(self, kind: Literal["ingress", "network"], resource_id: str) -> str | None:
        """The live job that holds a public link (`ingress`) or IP address (`network`), or None if it is free.

        Raises `RequestRefused` with `NOT_FOUND` if the actor may not see the link or the address.
        """
        request = HolderRequest(username=self._actor.username, kind=kind, resource_id=resource_id)
        return (await self._ask_worker(names.ACTIVITY_FIND_HOLDER, request, HolderAnswer)).job_id

    @property
    def workspace(self) -> Workspace:
        """Where the actor works, which is who pays: his project, or himself."""
        return Workspace.of(JobOwner(created_by=self._actor.username, project=self._actor.project))

    @staticmethod
    def new_job_id() -> str:
        """An id for `create`, chosen by the caller so that he can repeat the call."""
        return names.new_job_id()

    def _handle(self, job_id: str) -> WorkflowHandle[Any, Any]:
        return self._temporal.get_workflow_handle(job_id)

    async def _memberships(self) -> list[Membership]:
        """The projects that the actor is in, asked for again after a while."""
        now = time.monotonic()
        if self._known_memberships is None or now - self._known_memberships[0] > MEMBERSHIP_SECONDS:
            request = MembershipsRequest(username=self._actor.username)
            answer = await self._ask_worker(names.ACTIVITY_BROWSE_MEMBERSHIPS, request, MembershipsAnswer)
            self._known_memberships = (now, answer.memberships)
        return self._known_memberships[1]

    async def _for_reader(self, job: Job) -> Job:
        is_own = job.owner == JobOwner(created_by=self._actor.username)
        return for_reader(job, self._actor.username, [] if is_own else await self._memberships())

    async def _require(self, job_id: str, permission: Permission) -> None:
        """Raises `JobNotFound` if the actor may not see the job, `RequestRefused` if he may only see it."""
        if await self._owns(job_id):
            return
        job = await self.retrieve(job_id)
        if not _may(job, permission):
            raise RequestRefused(ErrorCode.FORBIDDEN, f"You may not change the job {job_id}; {permission} is needed.")

    async def _owns(self, job_id: str) -> bool:
        """Whether it is a job of the actor's own workspace, which needs no worker to be known."""
        try:
            with translated():
                description = await self._handle(job_id).describe()
        except JobClosed:
            return False
        found = {pair.key.name: pair.value for pair in description.typed_search_attributes}
        return found.get(names.JOB_OWNER) == self._actor.username and names.JOB_PROJECT not in found

    async def _retrieve(self, job_id: str) -> Job:
        """The job, whoever asks. Raises `JobNotFound`."""
        live = await self._ask_workflow(job_id)
        if live is not None and not live.omitted_updates:
            return live
        ended, stored = await self._ask_archive(job_id)
        if live is not None:
            # The store may have moved on since the workflow answered.
            return _with_updates(live, [*stored[: live.omitted_updates], *live.updates])
        if ended is None:
            raise JobNotFound(job_id)
        return _with_updates(ended, stored)

    async def _update(
        self,
        job_id: str,
        name: str,
        argument: WireModel | None = None,
        permission: Permission = Permission.EDIT,
    ) -> None:
        await self._require(job_id, permission)
        arguments = [] if argument is None else [argument.to_wire()]
        with translated():
            await self._handle(job_id).execute_update(name, args=arguments)

    async def _ask_workflow(self, job_id: str) -> Job | None:
        """What the workflow knows; None if there is none, or if it ended without a job (a refusal)."""
        handle = self._handle(job_id)
        try:
            with translated():
                answer = await handle.query(names.QUERY_JOB, result_type=dict, rpc_timeout=ANSWER_PATIENCE)
                job = Job.model_validate(answer)
                if not job.status.state.is_terminal:
                    status = (await handle.describe()).status
                    if status is WorkflowExecutionStatus.FAILED:
                        return None
                return job
        except JobClosed:
            return None

    async def _ask_archive(self, job_id: str) -> tuple[Job | None, list[JobUpdate]]:
        """What the store has: the job, if it has ended, and its updates."""
        job: Job | None = None
        updates: list[JobUpdate] = []
        position: int | None = 0
        while position is not None:
            request = ArchiveRequest(job_id=job_id, first_position=position)
            page = await self._ask_worker(names.ACTIVITY_RETRIEVE_FROM_ARCHIVE, request, ArchiveAnswer)
            job, position = page.job, page.next_position
            updates += page.updates
        return job, updates

    @overload
    async def _ask_worker(self, activity: str, request: WireModel, answer_type: type[Answer]) -> Answer: ...
    @overload
    async def _ask_worker(self, activity: str, request: WireModel, answer_type: None) -> None: ...
    async def _ask_worker(self, activity: str, request: WireModel, answer_type: type[Answer] | None) -> Answer | None:
        """Ask a worker what only the store knows, by an activity without a workflow."""
        with translated():
            answer = await self._temporal.execute_activity(
                activity,
                request,
                id=f"{activity}-{names.new_job_id()}",
                task_queue=names.TASK_QUEUE,
                schedule_to_close_timeout=ANSWER_PATIENCE,
                result_type=answer_type,
            )
        return None if answer_type is None else answer_type.model_validate(answer)

    async def _browse_live(self, filters: JobFilter, limit: int, before: str | None) -> list[Job]:
        clauses = [f"WorkflowType = '{names.WORKFLOW}'", "ExecutionStatus = 'Running'"]
        attributes = {
            names.JOB_STATE: filters.state,
            names.JOB_PROVIDER: filters.provider,
            names.JOB_APPLICATION: filters.application,
            names.JOB_OWNER: filters.created_by or (None if self._actor.project else self._actor.username),
            names.JOB_PROJECT: self._actor.project,
        }
        clauses += [f"{name} = '{_quoted(value)}'" for name, value in attributes.items() if value]
        if not self._actor.project:
            clauses.append(f"{names.JOB_PROJECT} IS NULL")
        if before is not None:
            clauses.append(f"WorkflowId < '{_quoted(before)}'")
        ids = []
        with translated():
            async for execution in self._temporal.list_workflows(" AND ".join(clauses), limit=limit):
                ids.append(execution.id)
        answers = await asyncio.gather(*map(self._ask_workflow, ids))
        return [_with_updates(job, []) for job in answers if job is not None]

    async def _browse_archive(self, filters: JobFilter, limit: int, before: str | None) -> list[Job]:
        if filters.state is not None and not filters.state.is_terminal:
            return []
        request = BrowseRequest(
            created_by=filters.created_by or (None if self._actor.project else self._actor.username),
            project=self._actor.project,
            personal=self._actor.project is None,
            provider=filters.provider,
            application=filters.application,
            states=[filters.state] if filters.state else None,
            before=before,
            limit=limit,
        )
        return (await self._ask_worker(names.ACTIVITY_BROWSE_ARCHIVE, request, BrowseAnswer)).jobs


def _with_updates(job: Job, updates: list[JobUpdate]) -> Job:
    return job.model_copy(update={"updates": updates, "omitted_updates": 0})


def _refuse_too_much(specifications: Sequence[JobSpecification]) -> None:
    if findings := size_findings(specifications):
        raise JobRejected(ErrorCode.VERIFICATION_FAILED, findings[0].message, findings)


def _request(model: type[Answer], **fields: Any) -> Answer:
    """The argument of an update. Raises `RequestRefused` with a sentence for each wrong field."""
    try:
        return model(**fields)
    except ValidationError as error:
        raise RequestRefused(ErrorCode.VERIFICATION_FAILED, " ".join(sentences(error))) from error


def _look_at_errors_of(start: WithStartWorkflowOperation[Any, Any]) -> None:
    """An error comes twice, and asyncio complains of one that nobody has looked at."""
    handle = asyncio.ensure_future(start.workflow_handle())
    handle.add_done_callback(lambda done: done.cancelled() or done.exception())


def _may(job: Job, permission: Permission) -> bool:
    return job.permissions is not None and permission in job.permissions.myself


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")
