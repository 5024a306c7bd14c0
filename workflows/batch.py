"""The workflow `JobBatch`: several jobs that are accepted together or not at all, also across
providers.

It admits them in one transaction, starts their workflows, which wait, hands them to each provider
in one call, and then tells all of them the same: accepted, or refused with everything undone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, TypeAlias

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

from workflows import timeouts
from workflows.errors import as_refusal, is_refusal
from workflows.job import JobWorkflow

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

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
        Refusal,
        SubmitResult,
    )
    from ucloud_orchestrator.temporal.names import (
        BATCH_WORKFLOW,
        SIGNAL_BATCH_OUTCOME,
        provider_task_queue,
    )
    from ucloud_orchestrator.temporal.search_attributes import initial_search_attributes
    from ucloud_orchestrator.temporal.user_metadata import details_of, summary_of

Child: TypeAlias = ChildWorkflowHandle[Any, Any]

CHILD_START_BATCH = 50
"""Of jobs in one task, whose specifications, details and owners are all in one message (decision
0013).
"""


@workflow.defn(name=BATCH_WORKFLOW)
class JobBatchWorkflow:
    """The way of a batch until its jobs live on their own."""

    @workflow.init
    def __init__(self, request: BatchRequest) -> None:
        self._request = request
        self._job_ids = [job.job_id for job in request.jobs]
        self._is_decided = False
        self._refusal: ApplicationError | None = None
        self._cancelled: str | None = None
        self._leaving: set[str] = set()
        self._in_flight: set[str] = set()
        self._told: set[str] = set()
        self._is_submitted = False
        self._results: dict[str, SubmitResult] = {}

    @workflow.run
    async def run(self, request: BatchRequest) -> list[str]:
        """Bring all jobs to their providers, or none; returns their ids.

        Fails with the first refusal.
        """
        story = asyncio.create_task(self._execute())
        was_cancelled = False
        while not story.done():
            try:
                await asyncio.shield(story)
            except asyncio.CancelledError:
                reason = workflow.cancellation_reason()
                if was_cancelled or reason is None:
                    raise
                was_cancelled = True  # a batch is handed over or undone, never left in between
                self._cancelled = "Its batch was cancelled" + (
                    f": {truncate(reason)}" if reason else "."
                )
        story.result()
        self._is_decided = True
        await workflow.wait_condition(workflow.all_handlers_finished)
        if self._refusal is not None:
            raise self._refusal
        if self._cancelled is not None:
            raise asyncio.CancelledError
        return self._job_ids

    @workflow.signal(
        description="For the batch's jobs alone: one that must end before the batch is through."
    )
    def leave(self, message: Any = None) -> None:
        """Submit that job no more, and tell it when that is sure."""
        try:
            self._leaving.add(LeaveRequest.model_validate(message).job_id)
        except ValidationError as error:
            workflow.logger.warning(
                "A malformed message was ignored: %s", " ".join(error_messages(error, message))
            )

    @workflow.update(
        description="Wait until all jobs are accepted, and get their ids. A refusal is an error."
    )
    async def accepted(self) -> list[str]:
        """The ids of the jobs, in order.

        Raises an `ApplicationError` whose type is the code of the refusal.
        """
        await workflow.wait_condition(lambda: self._is_decided)
        if self._refusal is not None:
            raise ApplicationError(
                self._refusal.message, *self._refusal.details, type=self._refusal.type
            )
        return self._job_ids

    async def _execute(self) -> None:
        jobs = await self._admit()
        if jobs is None:
            return
        children = dict(zip(self._job_ids, await self._start(jobs), strict=True))
        if self._refusal is None:
            letting_go = asyncio.create_task(self._release_leaving_jobs(children))
            await self._submit(jobs)
            self._is_submitted = True
            await letting_go
            jobs = [job for job in jobs if job.id not in self._told]
            if self._refusal is not None:
                await self._stop(jobs)
        if self._refusal is not None:
            await self._withdraw([job.id for job in jobs])
        await asyncio.gather(
            *(_send_outcome(children[job.id], self._outcome(job.id)) for job in jobs)
        )

    async def _release_leaving_jobs(self, children: Mapping[str, Child | None]) -> None:
        """Hand over each job that must end early, as soon as no call about it is under way; it
        stops itself.
        """

        def ready() -> list[str]:
            return sorted((self._leaving & children.keys()) - self._in_flight - self._told)

        while not self._is_submitted:
            await workflow.wait_condition(lambda: bool(ready()) or self._is_submitted)
            for job_id in ready():
                self._told.add(job_id)
                await _send_outcome(
                    children[job_id], BatchOutcome(result=self._results.get(job_id))
                )

    async def _admit(self) -> list[Job] | None:
        request = self._request
        asked = [
            AdmissionRequest(
                job_id=job.job_id, owner=request.owner, specification=job.specification
            )
            for job in request.jobs
        ]
        try:
            admission: BatchAdmission = await workflow.execute_local_activity_method(
                AdmissionActivities.admit_batch,
                BatchAdmissionRequest(jobs=asked),
                start_to_close_timeout=timeouts.BATCH_STORE_ATTEMPT,
                retry_policy=timeouts.STORE_RETRY,
            )
        except FailureError as error:
            self._refusal = as_refusal(error)
            return None
        now = int(workflow.now().timestamp() * 1000)
        jobs = []
        for job_id, admitted in zip(self._job_ids, admission.jobs, strict=True):
            job = Job(
                id=job_id,
                owner=request.owner,
                specification=admitted.specification,
                status=JobStatus(state=JobState.IN_QUEUE),
                created_at=now,
            )
            billing = job.billing.model_copy(update={"price_per_unit": admitted.price_per_unit})
            jobs.append(job.model_copy(update={"billing": billing}))
        return jobs

    async def _start(self, jobs: list[Job]) -> list[Child | None]:
        """Start the workflow of each job; it waits for the outcome.

        An id that is taken refuses the batch.
        """
        children: list[Child | None] = []
        for first in range(0, len(jobs), CHILD_START_BATCH):
            at_once = jobs[first : first + CHILD_START_BATCH]
            children += await asyncio.gather(*map(self._start_one, at_once))
        return children

    async def _start_one(self, job: Job) -> Child | None:
        attributes = [
            SearchAttributePair(SearchAttributeKey.for_keyword(name), value)
            for name, value in initial_search_attributes(job.owner, job.specification).items()
        ]
        place = BatchMembership(
            batch_id=workflow.info().workflow_id, price_per_unit=job.billing.price_per_unit
        )
        try:
            return await workflow.start_child_workflow(
                JobWorkflow.run,
                JobRequest(owner=job.owner, specification=job.specification, batch=place),
                id=job.id,
                parent_close_policy=ParentClosePolicy.ABANDON,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                search_attributes=TypedSearchAttributes(attributes),
                static_summary=summary_of(job.owner, job.specification),
                static_details=details_of(job.owner, job.specification),
            )
        except WorkflowAlreadyStartedError:
            message = f"The id {job.id} is taken by another job."
            self._refusal = ApplicationError(
                message, type=ErrorCode.DUPLICATE_JOB, non_retryable=True
            )
            return None

    async def _submit(self, jobs: list[Job]) -> None:
        """One call to each provider, at the same time. The first refusal ends the others."""
        providers = sorted({job.specification.product.provider for job in jobs})
        await asyncio.gather(
            *(self._submit_to(provider, _of(provider, jobs)) for provider in providers)
        )

    async def _submit_to(self, provider: str, jobs: list[Job]) -> None:
        """Call one provider until it has answered, without the jobs that leave meanwhile."""
        while wanted := [
            job for job in jobs if job.id not in self._leaving and not self._is_given_up
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
    def _is_given_up(self) -> bool:
        return self._refusal is not None or self._cancelled is not None

    async def _call(self, provider: str, jobs: list[Job]) -> BatchSubmitResult | None:
        """One call; None if it was refused, or broken off because the batch is given up or a job
        leaves.
        """
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
            lambda: call.done() or self._is_given_up or bool(self._leaving & ids)
        )
        is_broken_off = not call.done()
        if is_broken_off:
            call.cancel()
        try:
            return await call
        except FailureError as error:
            if self._refusal is not None or is_cancelled_exception(error):
                return None
            # A last attempt that went wrong by itself is not made again, as it was broken off;
            # nobody has said no.
            if not is_broken_off or is_refusal(error):
                self._refusal = as_refusal(error)
            return None

    async def _stop(self, jobs: list[Job]) -> None:
        """Stop at every provider whatever may have reached it."""
        providers = sorted({job.specification.product.provider for job in jobs})
        await asyncio.gather(
            *(self._terminate(provider, _of(provider, jobs)) for provider in providers)
        )

    async def _withdraw(self, job_ids: list[str]) -> None:
        """Release what admission took."""
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
                "The provider %s did not stop a refused batch: %s", provider, error.cause
            )

    def _outcome(self, job_id: str) -> BatchOutcome:
        if self._refusal is None:
            return BatchOutcome(result=self._results.get(job_id), cancelled=self._cancelled)
        code = ErrorCode(self._refusal.type or ErrorCode.PROVIDER_REJECTED)
        return BatchOutcome(
            refusal=Refusal(code=code, message=f"Its batch was refused: {self._refusal.message}")
        )


async def _send_outcome(child: Child | None, outcome: BatchOutcome) -> None:
    if child is None:
        return
    try:
        await child.signal(SIGNAL_BATCH_OUTCOME, outcome.to_wire())
    except FailureError as error:
        workflow.logger.warning(
            "The job %s is gone before its batch was through: %s", child.id, error
        )


def _of(provider: str, jobs: list[Job]) -> list[Job]:
    return [job for job in jobs if job.specification.product.provider == provider]
