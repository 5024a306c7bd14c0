"""The calls to a provider, as activities on the task queue of that provider."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.errors import refusal
from activities.metrics import PendingSubmissions
from activities.products import ProductCache
from activities.provider_http import ProviderHttp
from ucloud_orchestrator.catalog import Catalog
from ucloud_orchestrator.models.claims import fields_and_values
from ucloud_orchestrator.models.errors import ErrorCode
from ucloud_orchestrator.models.job import Job
from ucloud_orchestrator.models.messages import (
    BatchCall,
    BatchSubmitResult,
    ExtendCall,
    OpenLogsCall,
    OpenSessionCall,
    ProviderCall,
    SubmitResult,
)
from ucloud_orchestrator.models.parameter_values import IngressValue, LicenseServerValue
from ucloud_orchestrator.models.product import BackendSupport
from ucloud_orchestrator.models.provider_api import CreateResponse, ExtendItem, JobReference
from ucloud_orchestrator.models.session import LogsSession, OpenSession, SessionItem, SessionType
from ucloud_orchestrator.store import ClaimStore

HEARTBEAT_INTERVAL = 3.0
"""Seconds; a third of the heartbeat timeout, so that one lost heartbeat does not end an attempt."""


class ProviderActivities:
    """The calls to one provider.

    Each may be repeated: the provider tells a repeat by the job's id.
    """

    def __init__(
        self,
        catalog: Callable[[], Catalog],
        http: ProviderHttp,
        offered: ProductCache,
        submissions: PendingSubmissions,
        holdings: ClaimStore,
    ) -> None:
        self._catalog = catalog
        self._http = http
        self._offered = offered
        self._submissions = submissions
        self._holdings = holdings

    @activity.defn
    async def submit(self, call: ProviderCall) -> SubmitResult:
        """Hand over the job with its application and tool resolved.

        Raises `PROVIDER_REJECTED` if it is refused.
        """
        async with _heartbeats():
            (answer,) = await self._create([call.job])
        return SubmitResult(provider_generated_id=answer.id, updates=answer.updates)

    @activity.defn
    async def submit_batch(self, call: BatchCall) -> BatchSubmitResult:
        """Hand over several jobs in one call, which takes all or none.

        Raises `PROVIDER_REJECTED`.
        """
        async with _heartbeats():
            answers = await self._create(call.jobs)
        results = [
            SubmitResult(provider_generated_id=answer.id, updates=answer.updates)
            for answer in answers
        ]
        return BatchSubmitResult(results=results)

    @activity.defn
    async def terminate_batch(self, call: BatchCall) -> None:
        """Stop several jobs in one call."""
        async with _heartbeats():
            await self._http.post("/terminate", *call.jobs)

    @activity.defn
    async def terminate(self, call: ProviderCall) -> None:
        """Stop the job and delete what belongs to it alone; an unknown or ended job is no error."""
        async with _heartbeats():
            await self._http.post("/terminate", call.job)

    @activity.defn
    async def extend(self, call: ExtendCall) -> None:
        """Give the job more time.

        Raises `FEATURE_NOT_SUPPORTED_BY_PROVIDER` before the provider is asked.
        """
        await self._require(call.job, "timeExtension", lambda support: support.time_extension)
        async with _heartbeats():
            await self._http.post(
                "/extend", ExtendItem(job=call.job, requested_time=call.requested_time)
            )

    @activity.defn
    async def suspend(self, call: ProviderCall) -> None:
        """Hold the job. Raises `FEATURE_NOT_SUPPORTED_BY_PROVIDER` before the provider is asked."""
        await self._require(call.job, "suspension", lambda support: support.suspension)
        async with _heartbeats():
            await self._http.post("/suspend", JobReference(job=call.job))

    @activity.defn
    async def unsuspend(self, call: ProviderCall) -> None:
        """Let the job go on.

        Raises `FEATURE_NOT_SUPPORTED_BY_PROVIDER` before the provider is asked.
        """
        await self._require(call.job, "suspension", lambda support: support.suspension)
        async with _heartbeats():
            await self._http.post("/unsuspend", JobReference(job=call.job))

    @activity.defn
    async def open_session(self, call: OpenSessionCall) -> OpenSession:
        """Ask for a session.

        Raises `FEATURE_NOT_SUPPORTED_BY_PROVIDER` before the provider is asked.
        """
        request = call.request
        await self._require_session(call.job, request.session_type)
        item = SessionItem(
            job=call.job,
            rank=request.rank,
            session_type=request.session_type,
            challenge=request.challenge,
        )
        async with _heartbeats():
            return await self._http.open_session(item)

    @activity.defn
    async def open_logs(self, call: OpenLogsCall) -> LogsSession:
        """Ask for the output of a job, which may have ended: clients run this without a workflow.

        Raises `FEATURE_NOT_SUPPORTED_BY_PROVIDER` before the provider is asked, and
        `PROVIDER_REJECTED`.
        """
        await self._require_session(call.job, SessionType.LOGS)
        async with _heartbeats():
            session = await self._http.open_session(
                SessionItem(job=call.job, session_type=SessionType.LOGS, challenge=call.challenge)
            )
        if not isinstance(session, LogsSession):
            text = (
                f"The provider {call.job.specification.product.provider} gave a session that "
                "is not for logs."
            )
            raise refusal(ErrorCode.PROVIDER_REJECTED, text)
        return session

    async def _require_session(self, job: Job, session_type: SessionType) -> None:
        application = self._catalog().application(job.specification.application)
        match session_type:
            case SessionType.SHELL:
                await self._require(job, "terminal", lambda support: support.terminal)
            case SessionType.WEB:
                await self._require(job, "web", lambda support: support.web)
                lacks = application is None or application.web is None
            case SessionType.VNC:
                await self._require(job, "vnc", lambda support: support.vnc)
                lacks = application is None or application.vnc is None
            case SessionType.LOGS:
                await self._require(job, "logs", lambda support: support.logs)
        if session_type in {SessionType.WEB, SessionType.VNC} and lacks:
            text = (
                f"The application {job.specification.application} has no interface of type "
                f"{session_type}."
            )
            raise refusal(ErrorCode.VERIFICATION_FAILED, text)

    async def _create(self, jobs: Sequence[Job]) -> list[CreateResponse]:
        for job in jobs:
            self._submissions.started(job.id)
        try:
            answers = await self._http.create(*map(self._resolved, jobs))
        except ApplicationError as error:
            if error.non_retryable:
                self._submissions.finished(*(job.id for job in jobs))
            raise
        self._submissions.finished(*(job.id for job in jobs))
        # If this fails, the jobs are handed over again: what is not noted would not be missed when
        # it got lost.
        await self._holdings.mark_submitted([job.id for job in jobs])
        return answers

    def _resolved(self, job: Job) -> Job:
        catalog = self._catalog()
        application = catalog.application(job.specification.application)
        tool = catalog.tool(application.tool) if application else None
        product = catalog.product(job.specification.product)
        if application is None or tool is None or product is None:
            raise refusal(
                ErrorCode.VERIFICATION_FAILED,
                f"The application {job.specification.application} or the product "
                f"{job.specification.product} "
                "has left the catalog.",
            )
        support = catalog.support(job.specification.product)
        status = job.status.model_copy(
            update={
                "resolved_application": {
                    "application": application.to_wire(),
                    "tool": tool.to_wire(),
                },
                "resolved_product": product.to_wire(),
                "resolved_support": support.to_wire() if support else None,
                "resolved_licenses": {
                    value.id: catalog.licenses[value.id].text
                    for _, value in fields_and_values(job.specification)
                    if isinstance(value, LicenseServerValue) and value.id in catalog.licenses
                }
                or None,
                "resolved_links": {
                    value.id: catalog.links[value.id].domain
                    for _, value in fields_and_values(job.specification)
                    if isinstance(value, IngressValue) and value.id in catalog.links
                }
                or None,
            }
        )
        return job.model_copy(update={"status": status})

    async def _require(
        self, job: Job, feature: str, has_it: Callable[[BackendSupport], bool]
    ) -> None:
        catalog = self._catalog()
        application = catalog.application(job.specification.application)
        tool = catalog.tool(application.tool) if application else None
        offered = await self._offered.of(job.specification.product.provider) or {}
        support = offered.get(job.specification.product) or catalog.support(
            job.specification.product
        )
        if tool is None or support is None or not has_it(tool.backend.support_in(support)):
            raise refusal(
                ErrorCode.FEATURE_NOT_SUPPORTED_BY_PROVIDER,
                f"The provider {job.specification.product.provider} does not support {feature} "
                f"on {job.specification.product.id}.",
            )


@asynccontextmanager
async def _heartbeats() -> AsyncIterator[None]:
    """Heartbeat while a call is under way: this is how a cancel reaches it, and how its death is
    noticed.
    """

    async def beat() -> None:
        while True:
            activity.heartbeat()
            await asyncio.sleep(HEARTBEAT_INTERVAL)

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
        with suppress(asyncio.CancelledError):
            await beating
