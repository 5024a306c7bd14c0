"""`JobClient`: how users' programs start jobs, watch them and stop them."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import ValidationError
from temporalio.client import WithStartWorkflowOperation, WorkflowExecutionStatus
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError

from client.errors import JobClosed, JobNotFound, JobRejected, RequestRefused, map_errors
from client.logs import LogReader
from client.queries import may
from client.session import Actor
from client.wallets import WalletClient
from ucloud_orchestrator.models.base import ApiModel, error_messages
from ucloud_orchestrator.models.errors import MAXIMUM_SENTENCE, ErrorCode
from ucloud_orchestrator.models.job import (
    Job,
    JobOwner,
    JobSpecification,
    Permission,
    ResourceAclEntry,
    SimpleDuration,
)
from ucloud_orchestrator.models.limits import size_findings
from ucloud_orchestrator.models.messages import (
    MAXIMUM_BATCH,
    AclRequest,
    BatchedJob,
    BatchRequest,
    ExtendRequest,
    JobRequest,
    RenameRequest,
)
from ucloud_orchestrator.models.session import (
    OPEN_SESSION,
    OpenSession,
    OpenSessionRequest,
    SessionType,
    with_verifier,
)
from ucloud_orchestrator.temporal import names
from ucloud_orchestrator.temporal.connection import connect_to_temporal
from ucloud_orchestrator.temporal.search_attributes import initial_search_attributes
from ucloud_orchestrator.temporal.user_metadata import details_of, summary_of

_ACCEPTED_UPDATE_ID = "accepted"

Message = TypeVar("Message", bound=ApiModel)


class JobClient(LogReader, WalletClient):
    """A user's connection to the orchestrator.

    >>> jobs = await JobClient.connect(Actor(username="alice"))
    >>> job = await jobs.create(JobSpecification.model_validate({...}))
    >>> job = await jobs.wait(job.id)
    """

    @classmethod
    async def connect(
        cls, actor: Actor, address: str | None = None, namespace: str | None = None
    ) -> JobClient:
        """Connect to Temporal; what is not given comes from Temporal's environment variables.

        Raises `Unreachable`.
        """
        with map_errors():
            return cls(await connect_to_temporal(address, namespace), actor)

    async def create(
        self,
        specification: JobSpecification,
        job_id: str | None = None,
        timeout: timedelta | None = None,
    ) -> Job:
        """Start a job and wait until its provider has accepted it.

        With the same `job_id` (see `new_job_id`) the call can be repeated whatever broke in
        between: there is one job. `timeout` is how long to wait; the job goes on without the
        caller.

        Raises `JobRejected` with a code and all findings, or `Unreachable`, after which a repeat is
        right.
        """
        _check_size([specification])
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
            static_summary=summary_of(owner, specification),
            static_details=details_of(owner, specification),
        )
        try:
            with map_errors(refused=JobRejected):
                async with _consume_start_error(start):
                    answer = await self._temporal.execute_update_with_start_workflow(
                        names.UPDATE_ACCEPTED,
                        start_workflow_operation=start,
                        id=_ACCEPTED_UPDATE_ID,
                        result_type=dict,
                        rpc_timeout=timeout,
                    )
            job = Job.model_validate(answer)
        except WorkflowAlreadyStartedError:
            job = await self._retrieve_closed(job_id, owner)
        if job.owner != owner:
            raise JobRejected(ErrorCode.DUPLICATE_JOB, f"The id {job_id} is taken by another job.")
        job = await self._for_reader(job)
        if not may(
            job, Permission.READ
        ):  # the repeat of somebody who has left the project meanwhile
            raise JobNotFound(job_id)
        return job

    async def create_many(
        self,
        specifications: Sequence[JobSpecification],
        batch_id: str | None = None,
        timeout: timedelta | None = None,
    ) -> list[Job]:
        """Start several jobs: all or none, whatever happens to the caller, and also across
        providers.

        With the same `batch_id` (see `new_job_id`) the call can be repeated. Raises `JobRejected`
        with all findings, each with the place of its job, or `Unreachable`, after which a repeat is
        right.
        """
        _check_size(specifications)
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
        try:
            with map_errors(refused=JobRejected):
                async with _consume_start_error(start):
                    job_ids = await self._temporal.execute_update_with_start_workflow(
                        names.UPDATE_ACCEPTED,
                        start_workflow_operation=start,
                        id=_ACCEPTED_UPDATE_ID,
                        result_type=list[str],
                        rpc_timeout=timeout,
                    )
        except WorkflowAlreadyStartedError:
            with map_errors(refused=JobRejected):
                handle = self._temporal.get_workflow_handle(
                    f"batch-{batch_id}", result_type=list[str]
                )
                job_ids = await handle.result()
        return list(await asyncio.gather(*map(self.retrieve, job_ids)))

    async def cancel(self, job_id: str, reason: str = "") -> None:
        """Ask for the end of a job. Cancelling one that has ended has no effect.

        Raises `JobNotFound`, or `RequestRefused` if the reason is longer than a sentence.
        """
        if len(reason) > MAXIMUM_SENTENCE:
            text = f"The reason must have at most {MAXIMUM_SENTENCE} characters, not {len(reason)}."
            raise RequestRefused(ErrorCode.VERIFICATION_FAILED, text)
        await self._require(job_id, Permission.EDIT)
        try:
            with map_errors():
                await self._handle(job_id).cancel(reason=reason or f"by {self._actor.username}")
        except JobClosed:
            await self.retrieve(job_id)

    async def extend(self, job_id: str, requested_time: SimpleDuration) -> None:
        """Add to the job's time allocation.

        Raises `RequestRefused`, or `JobClosed` if the job has ended.
        """
        await self._update(
            job_id, names.UPDATE_EXTEND, ExtendRequest(requested_time=requested_time)
        )

    async def suspend(self, job_id: str) -> None:
        """Have the provider hold the job.

        Raises `RequestRefused`, or `JobClosed` if the job has ended.
        """
        await self._update(job_id, names.UPDATE_SUSPEND)

    async def unsuspend(self, job_id: str) -> None:
        """Have the provider go on with a suspended job.

        Raises `RequestRefused`, or `JobClosed` if it has ended.
        """
        await self._update(job_id, names.UPDATE_UNSUSPEND)

    async def open_session(
        self, job_id: str, session_type: SessionType, rank: int = 0
    ) -> OpenSession:
        """Get the address of a terminal, a web application or a desktop of a running job; it is
        good for minutes.

        What Temporal keeps of the answer opens nothing: this client alone has the secret that the
        addresses get here. Raises `RequestRefused`, or `JobClosed` if the job has ended.
        """
        verifier = secrets.token_urlsafe(32)
        challenge = hashlib.sha256(verifier.encode()).hexdigest()
        request = _request(
            OpenSessionRequest, session_type=session_type, rank=rank, challenge=challenge
        )
        answer = await self._update(job_id, names.UPDATE_OPEN_SESSION, request)
        return with_verifier(OPEN_SESSION.validate_python(answer), verifier)

    async def rename(self, job_id: str, name: str | None) -> None:
        """Give a live job another name.

        Raises `RequestRefused`, or `JobClosed` if the job has ended.
        """
        await self._update(job_id, names.UPDATE_RENAME, _request(RenameRequest, name=name))

    async def update_acl(self, job_id: str, acl: Sequence[ResourceAclEntry]) -> None:
        """Set who else may read, change or share a live job.

        Raises `RequestRefused`, or `JobClosed`.
        """
        await self._update(
            job_id, names.UPDATE_ACL, _request(AclRequest, acl=list(acl)), Permission.ADMIN
        )

    @staticmethod
    def new_job_id() -> str:
        """An id for `create`, chosen by the caller so that he can repeat the call."""
        return names.new_job_id()

    async def _retrieve_closed(self, job_id: str, owner: JobOwner) -> Job:
        """The job of a `create` whose answer was lost and whose workflow has closed since.

        Raises `JobRejected` if it was refused, as the lost answer did.
        """
        handle = self._handle(job_id)
        with map_errors(refused=JobRejected):
            description = await handle.describe()
            found = {pair.key.name: pair.value for pair in description.typed_search_attributes}
            is_own = (found.get(names.JOB_OWNER), found.get(names.JOB_PROJECT)) == (
                owner.created_by,
                owner.project,
            )
            if is_own and description.status is WorkflowExecutionStatus.FAILED:
                await handle.result()
        return await self.retrieve(job_id)

    async def _update(
        self,
        job_id: str,
        name: str,
        argument: ApiModel | None = None,
        permission: Permission = Permission.EDIT,
    ) -> Any:
        await self._require(job_id, permission)
        arguments = [] if argument is None else [argument.to_wire()]
        with map_errors():
            return await self._handle(job_id).execute_update(name, args=arguments)


def _check_size(specifications: Sequence[JobSpecification]) -> None:
    if findings := size_findings(specifications):
        raise JobRejected(ErrorCode.VERIFICATION_FAILED, findings[0].message, findings)


def _request(model: type[Message], **fields: Any) -> Message:
    """The argument of an update. Raises `RequestRefused` with a sentence for each wrong field."""
    try:
        return model(**fields)
    except ValidationError as error:
        raise RequestRefused(
            ErrorCode.VERIFICATION_FAILED, " ".join(error_messages(error))
        ) from error


@asynccontextmanager
async def _consume_start_error(start: WithStartWorkflowOperation[Any, Any]) -> AsyncIterator[None]:
    """An error comes twice, and asyncio complains of one that nobody has looked at."""
    try:
        yield
    except BaseException:
        handle = asyncio.ensure_future(start.workflow_handle())
        await asyncio.wait([handle], timeout=0)
        _ = handle.exception() if handle.done() and not handle.cancelled() else handle.cancel()
        raise
