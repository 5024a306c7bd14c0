"""The workflow `JobBatch`: several jobs that are accepted together or not at all.

It admits them in one transaction, starts their workflows, which wait, and submits them to each
provider in one call. Then it sends all of them the same outcome: accepted or rejected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, TypeAlias

from pydantic import ValidationError
from temporalio import workflow
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    FailureError,
    WorkflowAlreadyStartedError,
    is_cancelled_exception,
)
from temporalio.workflow import ActivityCancellationType, ChildWorkflowHandle, ParentClosePolicy

from activities.admission import AdmissionActivities
from activities.completion import CompletionActivities
from activities.provider import ProviderActivities
from ucloud_orchestrator.models.base import error_messages
from ucloud_orchestrator.models.errors import ErrorCode, truncate
from ucloud_orchestrator.models.job import Job, JobState, JobStatus
from ucloud_orchestrator.models.messages import (
    AdmissionRequest,
    BatchAdmission,
    BatchAdmissionRequest,
    BatchCall,
    BatchMembership,
    BatchOutcome,
    BatchRequest,
    BatchSubmitResult,
    BatchWithdrawal,
    JobRequest,
    LeaveRequest,
    Rejection,
    SubmitResult,
)
from ucloud_orchestrator.temporal.names import (
    BATCH_WORKFLOW,
    SIGNAL_BATCH_OUTCOME,
    provider_task_queue,
)
from ucloud_orchestrator.temporal.search_attributes import initial_search_attributes
from ucloud_orchestrator.temporal.user_metadata import details_of, summary_of
from workflows import timeouts
from workflows.errors import as_rejection, is_rejection, rejection
from workflows.job import JobWorkflow
from workflows.job_tracker import now

Child: TypeAlias = ChildWorkflowHandle[Any, Any]

CHILD_START_BATCH = 50
"""The children that one task starts: their requests are in one message (decision 0013)."""


@workflow.defn(name=BATCH_WORKFLOW)
class JobBatchWorkflow:
    """One batch, until its jobs are accepted or rejected."""

    @workflow.init
    def __init__(self, request: BatchRequest) -> None:
        self._request = request
        self._job_ids = [job.job_id for job in request.jobs]
        self._is_decided = False
        self._rejection: ApplicationError | None = None
        self._cancel_text: str | None = None
        self._leaving: set[str] = set()
        self._in_flight: set[str] = set()
        self._outcome_sent: set[str] = set()
        self._is_submitted = False
        self._results: dict[str, SubmitResult] = {}

    @workflow.run
    async def run(self, request: BatchRequest) -> list[str]:
        """Submit all jobs to their providers, or none; return their ids.

        The workflow fails with the first rejection.
        """
        flow = asyncio.create_task(self._execute())
        while not flow.done():
            try:
                await asyncio.shield(flow)
            except asyncio.CancelledError:
                reason = workflow.cancellation_reason()
                if self._cancel_text is not None or reason is None:
                    raise
                # Nothing is interrupted: the batch is submitted as a whole, or undone.
                self._cancel_text = "Its batch was cancelled" + (
                    f": {truncate(reason)}" if reason else "."
                )
        flow.result()
        self._is_decided = True
        await workflow.wait_condition(workflow.all_handlers_finished)
        if self._rejection is not None:
            raise self._rejection
        if self._cancel_text is not None:
            raise asyncio.CancelledError
        return self._job_ids

    @workflow.signal(
        description="For the batch's jobs alone: a job that must end before the batch is submitted."
    )
    def leave(self, message: Any = None) -> None:
        """Do not submit that job; it gets an outcome once no call includes it."""
        try:
            self._leaving.add(LeaveRequest.model_validate(message).job_id)
        except ValidationError as error:
            workflow.logger.warning(
                "A malformed message was ignored: %s", " ".join(error_messages(error, message))
            )

    @workflow.update(
        description="Wait until all jobs are accepted, and get their ids. A rejection is an error."
    )
    async def accepted(self) -> list[str]:
        """Return the ids of the jobs, in order. Raises the rejection."""
        await workflow.wait_condition(lambda: self._is_decided)
        if self._rejection is not None:
            raise ApplicationError(
                self._rejection.message, *self._rejection.details, type=self._rejection.type
            )
        return self._job_ids

    async def _execute(self) -> None:
        jobs = await self._admit()
        if jobs is None:
            return
        children = dict(zip(self._job_ids, await self._start_children(jobs), strict=True))
        if self._rejection is None:
            releasing = asyncio.create_task(self._release_leaving_jobs(children))
            await self._submit(jobs)
            self._is_submitted = True
            await releasing
            jobs = [job for job in jobs if job.id not in self._outcome_sent]
            if self._rejection is not None:
                await self._terminate_all(jobs)
        if self._rejection is not None:
            await self._withdraw([job.id for job in jobs])
        await asyncio.gather(
            *(_send_outcome(children[job.id], self._outcome(job.id)) for job in jobs)
        )

    async def _release_leaving_jobs(self, children: Mapping[str, Child | None]) -> None:
        """Send an outcome to each job that must end early, once no call includes it.

        The job then stops itself.
        """

        def ready() -> list[str]:
            return sorted((self._leaving & children.keys()) - self._in_flight - self._outcome_sent)

        while not self._is_submitted:
            await workflow.wait_condition(lambda: bool(ready()) or self._is_submitted)
            for job_id in ready():
                self._outcome_sent.add(job_id)
                await _send_outcome(
                    children[job_id], BatchOutcome(result=self._results.get(job_id))
                )

    async def _admit(self) -> list[Job] | None:
        request = self._request
        requests = [
            AdmissionRequest(
                job_id=job.job_id, owner=request.owner, specification=job.specification
            )
            for job in request.jobs
        ]
        try:
            admission: BatchAdmission = await workflow.execute_local_activity_method(
                AdmissionActivities.admit_batch,
                BatchAdmissionRequest(jobs=requests),
                start_to_close_timeout=timeouts.BATCH_STORE_ATTEMPT,
                retry_policy=timeouts.STORE_RETRY,
            )
        except FailureError as error:
            self._rejection = as_rejection(error)
            return None
        jobs = []
        for job_id, admitted in zip(self._job_ids, admission.jobs, strict=True):
            job = Job(
                id=job_id,
                owner=request.owner,
                specification=admitted.specification,
                status=JobStatus(state=JobState.IN_QUEUE),
                created_at=now(),
            )
            billing = job.billing.model_copy(update={"price_per_unit": admitted.price_per_unit})
            jobs.append(job.model_copy(update={"billing": billing}))
        return jobs

    async def _start_children(self, jobs: list[Job]) -> list[Child | None]:
        """Start the workflow of each job; it waits for the outcome.

        An id that another job has rejects the batch.
        """
        children: list[Child | None] = []
        for first in range(0, len(jobs), CHILD_START_BATCH):
            at_once = jobs[first : first + CHILD_START_BATCH]
            children += await asyncio.gather(*map(self._start_child, at_once))
        return children

    async def _start_child(self, job: Job) -> Child | None:
        attributes = [
            SearchAttributePair(SearchAttributeKey.for_keyword(name), value)
            for name, value in initial_search_attributes(job.owner, job.specification).items()
        ]
        membership = BatchMembership(
            batch_id=workflow.info().workflow_id, price_per_unit=job.billing.price_per_unit
        )
        try:
            return await workflow.start_child_workflow(
                JobWorkflow.run,
                JobRequest(owner=job.owner, specification=job.specification, batch=membership),
                id=job.id,
                parent_close_policy=ParentClosePolicy.ABANDON,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                search_attributes=TypedSearchAttributes(attributes),
                static_summary=summary_of(job.owner, job.specification),
                static_details=details_of(job.owner, job.specification),
            )
        except WorkflowAlreadyStartedError:
            self._rejection = rejection(
                ErrorCode.DUPLICATE_JOB, f"The id {job.id} is taken by another job."
            )
            return None

    async def _submit(self, jobs: list[Job]) -> None:
        """Call each provider at the same time. The first rejection cancels the other calls."""
        providers = sorted({job.specification.product.provider for job in jobs})
        await asyncio.gather(
            *(self._submit_to(provider, _of(provider, jobs)) for provider in providers)
        )

    async def _submit_to(self, provider: str, jobs: list[Job]) -> None:
        """Call one provider until it answers. A job that leaves starts a new call without it."""
        while wanted := [
            job for job in jobs if job.id not in self._leaving and not self._is_abandoned
        ]:
            self._in_flight |= {job.id for job in wanted}
            answer = await self._call(provider, wanted)
            self._in_flight -= {job.id for job in wanted}
            if answer is not None:
                self._results |= {
                    job.id: result for job, result in zip(wanted, answer.results, strict=True)
                }
                return

    @property
    def _is_abandoned(self) -> bool:
        return self._rejection is not None or self._cancel_text is not None

    async def _call(self, provider: str, jobs: list[Job]) -> BatchSubmitResult | None:
        """Call once. None: rejected, or cancelled as the batch is abandoned or a job leaves."""
        call = workflow.start_activity_method(
            ProviderActivities.submit_batch,
            BatchCall(jobs=jobs),
            task_queue=provider_task_queue(provider),
            start_to_close_timeout=timeouts.PROVIDER_ATTEMPT,
            heartbeat_timeout=timeouts.PROVIDER_HEARTBEAT,
            retry_policy=timeouts.PROVIDER_RETRY,
            cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=f"Submit {len(jobs)} jobs to {provider}",
        )
        ids = {job.id for job in jobs}
        await workflow.wait_condition(
            lambda: call.done() or self._is_abandoned or bool(self._leaving & ids)
        )
        was_cancelled = not call.done()
        if was_cancelled:
            call.cancel()
        try:
            return await call
        except FailureError as error:
            if self._rejection is not None or is_cancelled_exception(error):
                return None
            # Temporal does not retry the last attempt of a cancelled call: its failure is not a
            # rejection by the provider.
            if not was_cancelled or is_rejection(error):
                self._rejection = as_rejection(error)
            return None

    async def _terminate_all(self, jobs: list[Job]) -> None:
        providers = sorted({job.specification.product.provider for job in jobs})
        await asyncio.gather(
            *(self._terminate(provider, _of(provider, jobs)) for provider in providers)
        )

    async def _withdraw(self, job_ids: list[str]) -> None:
        await workflow.execute_local_activity_method(
            CompletionActivities.withdraw_batch,
            BatchWithdrawal(job_ids=job_ids),
            start_to_close_timeout=timeouts.BATCH_STORE_ATTEMPT,
            retry_policy=timeouts.STORE_RETRY,
        )

    async def _terminate(self, provider: str, jobs: list[Job]) -> None:
        try:
            await workflow.execute_activity_method(
                ProviderActivities.terminate_batch,
                BatchCall(jobs=jobs),
                task_queue=provider_task_queue(provider),
                start_to_close_timeout=timeouts.PROVIDER_ATTEMPT,
                schedule_to_close_timeout=timeouts.TERMINATE_TIMEOUT,
                heartbeat_timeout=timeouts.PROVIDER_HEARTBEAT,
                retry_policy=timeouts.PROVIDER_RETRY,
                summary=f"Stop {len(jobs)} jobs at {provider}",
            )
        except ActivityError as error:
            workflow.logger.error(
                "The provider %s did not stop a rejected batch: %s", provider, error.cause
            )

    def _outcome(self, job_id: str) -> BatchOutcome:
        if self._rejection is None:
            return BatchOutcome(result=self._results.get(job_id), cancelled=self._cancel_text)
        code = ErrorCode(self._rejection.type or ErrorCode.PROVIDER_REJECTED)
        return BatchOutcome(
            rejection=Rejection(
                code=code, message=f"Its batch was rejected: {self._rejection.message}"
            )
        )


async def _send_outcome(child: Child | None, outcome: BatchOutcome) -> None:
    if child is None:
        return
    try:
        await child.signal(SIGNAL_BATCH_OUTCOME, outcome.to_wire())
    except FailureError as error:
        workflow.logger.warning(
            "The job %s is gone before its batch was submitted: %s", child.id, error
        )


def _of(provider: str, jobs: list[Job]) -> list[Job]:
    return [job for job in jobs if job.specification.product.provider == provider]
