"""The workflow `Job`: one durable execution for each job, from the request to the archive.

`run` deals with Temporal (cancel, drain, continue-as-new); `_live` tells the story. A cancel of the workflow never
interrupts the story: `run` turns it into a wish that the story sees between its steps, so that no cleanup is ever cut
off. All that the job knows is in `self._job`; the rules that change it are in `workflows.lifecycle`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, is_cancelled_exception
from temporalio.workflow import ActivityCancellationType

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from activities.accounting import AccountingActivities
    from activities.admission import AdmissionActivities
    from activities.provider import ProviderActivities
    from activities.settlement import SettlementActivities
    from models.errors import ErrorCode
    from models.job import Job, JobState, JobStatus, JobUpdate
    from models.messages import (
        AclRequest,
        AdmissionRequest,
        BatchOutcome,
        CarriedJob,
        ChargeCall,
        CoverCall,
        ExtendCall,
        ExtendRequest,
        JobRequest,
        ProviderCall,
        RenameRequest,
        Settlement,
        SpilledUpdates,
        SubmitResult,
    )
    from models.money import ChargeResult
    from models.names import WORKFLOW, provider_task_queue
    from models.protocol import ChargeAnswer, ChargeId, ChargeMessage, UpdateMessage
    from models.wire import WireModel, sentences
    from workflows import display, lifecycle, timeouts

CARRIED_UPDATE_BYTES = 64 * 1024
"""What of the newest updates is carried through a continue-as-new; the older ones move to the store."""
HELD_UPDATE_BYTES = 512 * 1024
"""With more than this in updates the workflow continues as new, well below Temporal's limit of 2 MB for one answer."""
PAGE_BYTES = 256 * 1024
"""How much of the updates goes to the store in one step."""

Message = TypeVar("Message", bound=WireModel)


@workflow.defn(name=WORKFLOW)
class JobWorkflow:
    """The life of one job."""

    @workflow.init
    def __init__(self, request: JobRequest) -> None:
        self._ignored_updates = 0
        self._provider_generated_id: str | None = None
        self._accepted = request.carried is not None
        self._refusal: ApplicationError | None = None
        self._cancel_requested = False
        self._deadline_passed = False
        self._deadline_timer: asyncio.Task[None] | None = None
        self._deadline: int | None = None
        self._submitted = self._accepted
        self._batch = request.batch
        self._batch_outcome: BatchOutcome | None = None
        self._may_be_at_provider = self._accepted or request.batch is not None
        self._has_been_reported = False
        """Whether the provider has spoken of the job, which proves that it has it."""
        self._stopping = False
        self._settling = False
        self._out_of_credits_since: int | None = None
        self._grace_timer: asyncio.Task[None] | None = None
        self._own_reason: str | None = None
        """Why the orchestrator itself ends the job."""
        self._requests = asyncio.Lock()
        self._accounts = asyncio.Lock()
        self._job = self._carried_job(request, request.carried) if request.carried else self._new_job(request)
        self._shown_state: JobState | None = None

    @workflow.run
    async def run(self, request: JobRequest) -> None:
        """Live the job's life; end as Canceled if a cancel ended it, as Failed if the job was refused."""
        story = asyncio.create_task(self._live(is_new=request.carried is None))
        while not story.done():
            try:
                await asyncio.shield(story)
            except asyncio.CancelledError:
                # The server sends one cancel at most; anything else is the worker's shutdown or an eviction.
                if self._cancel_requested or workflow.cancellation_reason() is None:
                    raise
                self._cancel_requested = True
        was_cancelled = story.result()
        await workflow.wait_condition(workflow.all_handlers_finished)
        if self._refusal is not None:
            raise self._refusal
        if was_cancelled:
            raise asyncio.CancelledError

    # ---- the story -------------------------------------------------------------------------------------------------

    async def _live(self, is_new: bool) -> bool:
        """The whole life; returns whether a cancel ended it."""
        self._show()
        if is_new and not await self._enter():
            display.show_refusal(self._job)
            return False
        self._accepted = True
        self._show()
        if self._out_of_credits_since is not None:
            self._grace_timer = asyncio.create_task(self._watch_grace(self._out_of_credits_since))
        while not self._is_over:
            await workflow.wait_condition(lambda: self._is_due)
            if self._should_continue_as_new and not self._has_ended:
                await self._continue_as_new()
        self._stopping = True
        was_cancelled = await self._stop()
        await self._settle()
        return was_cancelled

    async def _enter(self) -> bool:
        """Be admitted and submitted, alone or by a batch. False: refused, and nothing is held."""
        if self._batch is None:
            return await self._admit() and await self._submit()
        billing = self._job.billing.model_copy(update={"price_per_unit": self._batch.price_per_unit})
        self._job = self._job.model_copy(update={"billing": billing})
        await workflow.wait_condition(lambda: self._batch_outcome is not None)
        assert self._batch_outcome is not None
        if self._batch_outcome.refusal is not None:
            self._refusal = _refusal(self._batch_outcome.refusal.code, self._batch_outcome.refusal.message)
            return False
        self._took(self._batch_outcome.result or SubmitResult())
        return True

    async def _admit(self) -> bool:
        """Check the request and hold what it needs. False: refused, and nothing is held."""
        try:
            admission = await workflow.execute_local_activity_method(
                AdmissionActivities.admit,
                AdmissionRequest(job_id=self._job.id, owner=self._job.owner, specification=self._job.specification),
                start_to_close_timeout=timeouts.STORE_ATTEMPT,
                retry_policy=timeouts.STORE_RETRY,
            )
        except FailureError as error:
            self._refusal = as_refusal(error)
            return False
        billing = self._job.billing.model_copy(update={"price_per_unit": admission.price_per_unit})
        self._job = self._job.model_copy(update={"specification": admission.specification, "billing": billing})
        return True

    async def _submit(self) -> bool:
        """Hand the job to its provider, for as long as it takes. False: the provider refused, all is undone."""
        if self._cancel_requested:
            return True
        self._may_be_at_provider = True
        submission = workflow.start_activity_method(
            ProviderActivities.submit,
            ProviderCall(job=self._job_without_updates),
            task_queue=provider_task_queue(self._provider),
            start_to_close_timeout=timeouts.PROVIDER_ATTEMPT,
            heartbeat_timeout=timeouts.PROVIDER_HEARTBEAT,
            retry_policy=timeouts.PROVIDER_RETRY,
            cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=f"Submit to {self._provider}",
        )
        await workflow.wait_condition(lambda: submission.done() or self._has_ended or self._cancel_requested)
        if not submission.done():
            submission.cancel()
        try:
            result: SubmitResult = await submission
        except FailureError as error:
            if is_cancelled_exception(error) or self._has_been_reported or self._cancel_requested:
                # A lost answer is unknown, never "no": the cleanup finds the job at the provider by its id.
                return True
            if not workflow.patched("refusal-after-withdrawal"):
                self._refusal = as_refusal(error)
            await self._withdraw()
            self._refusal = as_refusal(error)  # whoever hears of it finds nothing held any more
            return False
        self._took(result)
        return True

    def _took(self, result: SubmitResult) -> None:
        self._submitted = True
        self._provider_generated_id = result.provider_generated_id
        self._apply(result.updates)

    async def _stop(self) -> bool:
        """Stop the job at the provider if something else than its own end ends it; whether that was a cancel."""
        if self._has_ended:
            return False
        if self._own_reason is not None and not self._cancel_requested:
            self._adopt(lifecycle.cancel(self._job, self._own_reason, _now()))
            await self._stop_after_cancel()
            return False
        if self._cancel_requested:
            reason = workflow.cancellation_reason()
            text = f"Your job is being cancelled: {reason}" if reason else "Your job is being cancelled."
            self._adopt(lifecycle.cancel(self._job, text, _now()))
            await self._stop_after_cancel()
            return True
        text = "Your job was stopped because its time allocation ran out."
        self._adopt(lifecycle.pass_deadline(self._job, text, _now()))
        await self._terminate()
        return False

    async def _stop_after_cancel(self) -> None:
        was_submitted = self._submitted or self._has_been_reported
        if self._may_be_at_provider and not await self._terminate():
            self._end(JobState.FAILURE, "The provider could not be reached to stop the job; it may still be running.")
        elif not was_submitted:
            self._end(JobState.SUCCESS, "Your job was cancelled before it was started.")
        else:
            try:
                await workflow.wait_condition(
                    lambda: self._has_ended,
                    timeout=timeouts.FINAL_STATE_PATIENCE,
                    timeout_summary="Wait for the provider's final state",
                )
            except TimeoutError:
                self._end(JobState.SUCCESS, "Your job was cancelled; the provider stopped it and reported no more.")

    async def _terminate(self) -> bool:
        """Tell the provider to stop the job and to delete what belongs to it alone. False: it could not be told."""
        try:
            await workflow.execute_activity_method(
                ProviderActivities.terminate,
                ProviderCall(job=self._job_without_updates),
                task_queue=provider_task_queue(self._provider),
                start_to_close_timeout=timeouts.PROVIDER_ATTEMPT,
                schedule_to_close_timeout=timeouts.TERMINATE_PATIENCE,
                heartbeat_timeout=timeouts.PROVIDER_HEARTBEAT,
                retry_policy=timeouts.PROVIDER_RETRY,
                summary=f"Stop at {self._provider}",
            )
        except ActivityError as error:
            workflow.logger.error("The provider did not stop the job: %s", error.cause)
            return False
        return True

    async def _settle(self) -> None:
        """Release what the job held and archive it, exactly once in effect."""
        if self._update_bytes > HELD_UPDATE_BYTES and workflow.patched("spill-before-the-end"):
            await self._spill()
        self._settling = True
        async with self._accounts:  # a charge that is under way still counts
            await workflow.execute_local_activity_method(
                SettlementActivities.settle,
                Settlement(job=self._job),
                start_to_close_timeout=timeouts.STORE_ATTEMPT,
                retry_policy=timeouts.STORE_RETRY,
            )

    async def _withdraw(self) -> None:
        """Undo what admission did for a job that was never accepted."""
        await workflow.execute_local_activity_method(
            SettlementActivities.withdraw,
            self._job.id,
            start_to_close_timeout=timeouts.STORE_ATTEMPT,
            retry_policy=timeouts.STORE_RETRY,
        )

    async def _continue_as_new(self) -> None:
        await self._spill()
        await workflow.wait_condition(lambda: workflow.all_handlers_finished() or self._has_ended)
        if self._is_over:
            return
        job = self._job
        workflow.continue_as_new(
            JobRequest(
                owner=job.owner,
                specification=job.specification,
                carried=CarriedJob(
                    created_at=job.created_at,
                    status=job.status,
                    billing=job.billing,
                    updates=job.updates,
                    omitted_updates=job.omitted_updates,
                    output=job.output,
                    acl=job.acl,
                    ignored_updates=self._ignored_updates,
                    provider_generated_id=self._provider_generated_id,
                    out_of_credits_since=self._out_of_credits_since,
                ),
            )
        )

    async def _spill(self) -> None:
        """Move the oldest updates to the store, so that what is carried stays small."""
        held = CARRIED_UPDATE_BYTES
        kept = 0
        for update in reversed(self._job.updates):
            held -= _size(update)
            if held < 0:
                break
            kept += 1
        spilled = self._job.updates[: len(self._job.updates) - kept]
        # One payload of a job that got very much at once would be too large.
        in_pages = bool(spilled) and workflow.patched("spill-in-pages")
        for page in _pages(spilled) if in_pages else [spilled] if spilled else []:
            await self._keep_in_store(page)

    async def _keep_in_store(self, page: Sequence[JobUpdate]) -> None:
        await workflow.execute_local_activity_method(
            SettlementActivities.keep_updates,
            SpilledUpdates(job_id=self._job.id, first_position=self._job.omitted_updates, updates=list(page)),
            start_to_close_timeout=timeouts.STORE_ATTEMPT,
            retry_policy=timeouts.STORE_RETRY,
        )
        omitted = self._job.omitted_updates + len(page)
        self._job = self._job.model_copy(update={"updates": self._job.updates[len(page) :], "omitted_updates": omitted})
        self._update_bytes = sum(_size(update) for update in self._job.updates)

    # ---- what others send ------------------------------------------------------------------------------------------

    @workflow.signal(
        description='State changes and status texts from the provider: {"provider": "local", "updates": '
        '[{"state": "RUNNING", "status": "Your job is now running."}]}'
    )
    def update(self, message: Any = None) -> None:
        """Apply what the job's provider reports. Anything else is logged and dropped; nothing here can raise."""
        try:
            report = UpdateMessage.model_validate(message)
        except ValidationError as error:
            self._ignored_updates += 1
            workflow.logger.warning("A malformed update was ignored: %s", " ".join(sentences(error, message)))
            return
        if report.provider != self._provider:
            self._ignored_updates += len(report.updates)
            workflow.logger.warning(
                "An update from provider %r was ignored: the job is with %r.", report.provider, self._provider
            )
            return
        self._has_been_reported = True
        self._apply(report.updates)

    @workflow.signal(description="For the job's batch alone: what came of its submission.")
    def batch_outcome(self, message: Any = None) -> None:
        """Take what the batch says, once."""
        if self._batch is None or self._batch_outcome is not None:
            return
        try:
            self._batch_outcome = BatchOutcome.model_validate(message)
        except ValidationError as error:
            workflow.logger.warning("A malformed batch outcome was ignored: %s", " ".join(sentences(error, message)))

    @workflow.signal(dynamic=True)
    def unknown_signal(self, name: str, _arguments: Sequence[RawValue]) -> None:
        """Log a signal that the job does not know."""
        self._ignored_updates += 1
        workflow.logger.warning("The unknown signal %r was ignored; the signal for a provider is 'update'.", name)

    @workflow.query(name="job", description="The job as the orchestrator knows it.")
    def retrieve(self) -> dict[str, Any]:
        """The `Job` as on the wire."""
        return self._job.to_wire()

    @workflow.update(description="Wait until the job is accepted, and get it. A refusal is an error with its code.")
    async def accepted(self) -> dict[str, Any]:
        """The `Job` once the provider has it. Raises an `ApplicationError` whose type is the code of the refusal."""
        await workflow.wait_condition(lambda: self._accepted or self._refusal is not None)
        if self._refusal is not None:
            raise ApplicationError(self._refusal.message, *self._refusal.details, type=self._refusal.type)
        return self._job.to_wire()

    @workflow.update(description='Add to the time allocation: {"requestedTime": {"hours": 1}}')
    async def extend(self, request: Any = None) -> dict[str, Any]:
        """Ask the provider for more time, then move the deadline. Returns the job's new status."""
        requested = ExtendRequest.model_validate(request).requested_time
        async with self._requests:
            self._check_is_live()
            allocation = self._job.specification.time_allocation
            before = allocation.milliseconds if allocation else 0
            is_paid = workflow.patched("extension-is-paid")
            if is_paid:
                await self._cover(before + requested.milliseconds)
            try:
                await self._ask_provider(ProviderActivities.extend, ExtendCall, "Extend", requested_time=requested)
            except ApplicationError:
                if is_paid:
                    await self._cover(before)
                raise
            self._job = lifecycle.change_allocation(self._job, before + requested.milliseconds)
            self._show()
        return self._job.status.to_wire()

    async def _cover(self, milliseconds: int) -> None:
        """Hold the price of that whole allocation. Raises a refusal if the wallet has less."""
        async with self._accounts:
            if self._settling:
                return
            try:
                await workflow.execute_local_activity_method(
                    AccountingActivities.cover,
                    CoverCall(job_id=self._job.id, milliseconds=milliseconds),
                    start_to_close_timeout=timeouts.STORE_ATTEMPT,
                    retry_policy=timeouts.STORE_RETRY,
                )
            except FailureError as error:
                raise as_refusal(error) from error

    @extend.validator
    def _check_extend(self, request: Any = None) -> None:
        requested = _check(ExtendRequest, request).requested_time
        if requested.milliseconds == 0:
            raise _refusal(ErrorCode.VERIFICATION_FAILED, "requestedTime must be longer than zero.")
        self._check_is_live()

    @workflow.update(description="Suspend the job at its provider. No payload.")
    async def suspend(self) -> None:
        """Ask the provider to hold the job; its state changes when the provider reports it."""
        async with self._requests:
            await self._ask_provider(ProviderActivities.suspend, ProviderCall, "Suspend")

    @suspend.validator
    def _check_suspend(self) -> None:
        self._check_is_live()

    @workflow.update(description="Let a suspended job go on. No payload.")
    async def unsuspend(self) -> None:
        """Ask the provider to go on with the job; its state changes when the provider reports it."""
        async with self._requests:
            await self._ask_provider(ProviderActivities.unsuspend, ProviderCall, "Unsuspend")

    @unsuspend.validator
    def _check_unsuspend(self) -> None:
        self._check_is_live()

    @workflow.update(description='Give the job another name: {"name": "My analysis"}')
    def rename(self, request: Any = None) -> None:
        """Change the job's name; a name of null takes it away."""
        name = RenameRequest.model_validate(request).name
        specification = self._job.specification.model_copy(update={"name": name})
        self._job = self._job.model_copy(update={"specification": specification})
        self._show()

    @rename.validator
    def _check_rename(self, request: Any = None) -> None:
        _check(RenameRequest, request)
        self._check_is_live()

    @workflow.update(
        description='Set who else may do what: {"acl": [{"entity": {"type": "user", "username": "bob"}, '
        '"permissions": ["READ"]}]}'
    )
    def update_acl(self, request: Any = None) -> None:
        """Replace the job's access list."""
        self._job = self._job.model_copy(update={"acl": AclRequest.model_validate(request).acl})

    @update_acl.validator
    def _check_update_acl(self, request: Any = None) -> None:
        _check(AclRequest, request)
        self._check_is_live()

    @workflow.update(
        description="Charge for use, as the job's provider; each chargeId counts once: "
        '{"provider": "local", "charges": [{"chargeId": "2024-01-01T10:15", "units": 15, "periods": 1}]}'
    )
    async def charge(self, message: Any = None) -> dict[str, Any]:
        """Count charges. Returns those that the wallet could not pay, and those that were known."""
        charges = ChargeMessage.model_validate(message).charges
        async with self._accounts:
            if self._settling:
                raise _refusal(ErrorCode.INVALID_STATE, "The job has ended and its bill is closed.")
            try:
                result: ChargeResult = await workflow.execute_local_activity_method(
                    AccountingActivities.charge,
                    ChargeCall(job_id=self._job.id, charges=charges),
                    start_to_close_timeout=timeouts.STORE_ATTEMPT,
                    retry_policy=timeouts.STORE_RETRY,
                )
            except FailureError as error:
                raise as_refusal(error) from error
            billing = self._job.billing.model_copy(update={"credits_charged": result.credits_charged})
            self._job = self._job.model_copy(update={"billing": billing})
            self._follow_credits(result)
        return ChargeAnswer(
            insufficient_funds=[ChargeId(id=charge_id) for charge_id in result.insufficient_funds],
            duplicate_charges=[ChargeId(id=charge_id) for charge_id in result.duplicate_charges],
        ).to_wire()

    @charge.validator
    def _check_charge(self, message: Any = None) -> None:
        provider = _check(ChargeMessage, message).provider
        if provider != self._provider:
            raise _refusal(ErrorCode.FORBIDDEN, f"The job is with {self._provider}, not with {provider}.")
        if self._settling or not self._may_be_at_provider:
            raise _refusal(ErrorCode.INVALID_STATE, "The job is not with its provider; it cannot be charged.")

    def _follow_credits(self, result: ChargeResult) -> None:
        if not result.insufficient_funds:
            if self._grace_timer is not None:
                self._grace_timer.cancel()
            self._grace_timer = self._out_of_credits_since = None
        elif self._out_of_credits_since is None:
            self._out_of_credits_since = _now()
            minutes = timeouts.CREDIT_GRACE.total_seconds() / 60
            text = f"There are no more credits for this job; it will be stopped in {minutes:.0f} minutes."
            self._apply([JobUpdate(status=text)])
            self._grace_timer = asyncio.create_task(self._watch_grace(self._out_of_credits_since))
        self._show()

    async def _watch_grace(self, since: int) -> None:
        elapsed = timedelta(milliseconds=_now() - since)
        await workflow.sleep(max(timedelta(0), timeouts.CREDIT_GRACE - elapsed), summary="No more credits")
        self._own_reason = "Your job is being terminated (No more credits)."

    async def _ask_provider(self, activity: Any, call: Any, verb: str, **fields: Any) -> None:
        self._check_is_live()
        request = workflow.start_activity_method(
            activity,
            call(job=self._job_without_updates, **fields),
            task_queue=provider_task_queue(self._provider),
            start_to_close_timeout=timeouts.PROVIDER_ATTEMPT,
            schedule_to_close_timeout=timeouts.REQUEST_PATIENCE,
            heartbeat_timeout=timeouts.PROVIDER_HEARTBEAT,
            retry_policy=timeouts.PROVIDER_RETRY,
            summary=f"{verb} at {self._provider}",
        )
        await workflow.wait_condition(lambda: request.done() or self._stopping)
        if not request.done():
            request.cancel()
            raise _refusal(ErrorCode.INVALID_STATE, f"The job ended before the provider answered to {verb.lower()}.")
        try:
            await request
        except FailureError as error:
            raise as_refusal(error) from error

    def _check_is_live(self) -> None:
        if not self._accepted:
            raise _refusal(ErrorCode.INVALID_STATE, "The job is not yet accepted; try again when it is in the queue.")
        if self._stopping or self._is_over:
            state = self._job.status.state
            raise _refusal(ErrorCode.INVALID_STATE, f"The job is in state {state} and can no longer be changed.")

    # ---- what is known ---------------------------------------------------------------------------------------------

    def _new_job(self, request: JobRequest) -> Job:
        created_at = _now()
        first = JobUpdate(timestamp=created_at, state=JobState.IN_QUEUE, status="Your job is now waiting in the queue.")
        self._update_bytes = _size(first)
        return Job(
            id=workflow.info().workflow_id,
            owner=request.owner,
            specification=request.specification,
            status=JobStatus(state=JobState.IN_QUEUE),
            created_at=created_at,
            updates=[first],
        )

    def _carried_job(self, request: JobRequest, carried: CarriedJob) -> Job:
        self._ignored_updates = carried.ignored_updates
        self._provider_generated_id = carried.provider_generated_id
        self._out_of_credits_since = carried.out_of_credits_since
        self._update_bytes = sum(_size(update) for update in carried.updates)
        return Job(
            id=workflow.info().workflow_id,
            owner=request.owner,
            specification=request.specification,
            status=carried.status,
            billing=carried.billing,
            created_at=carried.created_at,
            updates=carried.updates,
            omitted_updates=carried.omitted_updates,
            output=carried.output,
            acl=carried.acl,
        )

    @property
    def _provider(self) -> str:
        return self._job.specification.product.provider

    @property
    def _has_ended(self) -> bool:
        return self._job.status.state.is_terminal

    @property
    def _is_over(self) -> bool:
        """Whether the job has ended, or is to be ended."""
        return self._has_ended or self._cancel_requested or self._deadline_passed or self._own_reason is not None

    @property
    def _is_due(self) -> bool:
        return self._is_over or self._should_continue_as_new

    @property
    def _should_continue_as_new(self) -> bool:
        return workflow.info().is_continue_as_new_suggested() or self._update_bytes > HELD_UPDATE_BYTES

    @property
    def _job_without_updates(self) -> Job:
        return self._job.model_copy(update={"updates": [], "omitted_updates": 0})

    def _apply(self, updates: Sequence[JobUpdate]) -> None:
        outcome = lifecycle.apply(self._job, updates, _now())
        for update, verdict in zip(updates, outcome.verdicts, strict=True):
            if verdict is not lifecycle.Verdict.APPLIED:
                self._ignored_updates += 1
                workflow.logger.info("An update to %s was ignored: %s.", update.state or "text", verdict)
        self._adopt(outcome)

    def _end(self, state: JobState, text: str) -> None:
        if not self._has_ended:
            self._adopt(lifecycle.apply(self._job, [JobUpdate(state=state, status=text)], _now()))

    def _adopt(self, outcome: lifecycle.Outcome) -> None:
        for update in outcome.job.updates[len(self._job.updates) :]:
            self._update_bytes += _size(update)
        self._job = outcome.job
        self._show()

    def _show(self) -> None:
        """Let the deadline's timer and what operators see follow the job."""
        display.show(self._job, self._provider_generated_id, self._ignored_updates)
        expires_at = self._job.status.expires_at
        if expires_at is None or expires_at == self._deadline or self._has_ended or self._stopping:
            return
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self._deadline = expires_at
        self._deadline_passed = False
        self._deadline_timer = asyncio.create_task(self._watch_deadline(expires_at))

    async def _watch_deadline(self, expires_at: int) -> None:
        remaining = timedelta(milliseconds=max(0, expires_at - _now()))
        await workflow.sleep(remaining, summary="The time allocation runs out")
        self._deadline_passed = True


def _now() -> int:
    return int(workflow.now().timestamp() * 1000)


def _size(update: JobUpdate) -> int:
    return 100 + len((update.status or "").encode()) + len((update.output_folder or "").encode())


def _pages(updates: Sequence[JobUpdate]) -> Iterator[list[JobUpdate]]:
    """The updates in order, in pages of about `PAGE_BYTES`."""
    page: list[JobUpdate] = []
    room = PAGE_BYTES
    for update in updates:
        if page and room < _size(update):
            yield page
            page, room = [], PAGE_BYTES
        page.append(update)
        room -= _size(update)
    if page:
        yield page


def _check(model: type[Message], message: Any) -> Message:
    """The message, or a refusal that names every wrong field."""
    try:
        return model.model_validate(message)
    except ValidationError as error:
        raise _refusal(ErrorCode.VERIFICATION_FAILED, " ".join(sentences(error, message))) from error


def _refusal(code: ErrorCode, message: str) -> ApplicationError:
    return ApplicationError(message, type=code, non_retryable=True)


def as_refusal(error: FailureError) -> ApplicationError:
    """The typed refusal inside an activity's failure; local activities give it bare, others wrapped."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ApplicationError):
        cause = cause.__cause__
    if cause is not None and cause.type in ErrorCode.__members__:
        return ApplicationError(cause.message, *cause.details, type=cause.type, non_retryable=True)
    return _refusal(ErrorCode.PROVIDER_REJECTED, f"The provider could not be asked: {cause or error}")
