"""The calls to a provider: activities on the task queue of that provider."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.errors import rejection
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
"""Seconds; a third of the heartbeat timeout: a single lost heartbeat does not end an attempt."""


class ProviderActivities:
    """The calls to one provider. Idempotent: the provider recognises a repeat by the job's id."""

    def __init__(
        self,
        catalog: Callable[[], Catalog],
        http: ProviderHttp,
        products: ProductCache,
        submissions: PendingSubmissions,
        claims: ClaimStore,
    ) -> None:
        self._catalog = catalog
        self._http = http
        self._products = products
        self._submissions = submissions
        self._claims = claims

    @activity.defn
    async def submit(self, call: ProviderCall) -> SubmitResult:
        """Submit the job with its application and tool resolved. Raises `PROVIDER_REJECTED`."""
        async with _heartbeats():
            (answer,) = await self._create([call.job])
        return SubmitResult(provider_generated_id=answer.id, updates=answer.updates)

    @activity.defn
    async def submit_batch(self, call: BatchCall) -> BatchSubmitResult:
        """Submit several jobs in one call: all or none. Raises `PROVIDER_REJECTED`."""
        async with _heartbeats():
            answers = await self._create(call.jobs)
        results = [
            SubmitResult(provider_generated_id=answer.id, updates=answer.updates)
            for answer in answers
        ]
        return BatchSubmitResult(results=results)

    @activity.defn
    async def terminate_batch(self, call: BatchCall) -> None:
        async with _heartbeats():
            await self._http.post("/terminate", *call.jobs)

    @activity.defn
    async def terminate(self, call: ProviderCall) -> None:
        """Terminate the job. An unknown or ended job is not an error."""
        async with _heartbeats():
            await self._http.post("/terminate", call.job)

    @activity.defn
    async def extend(self, call: ExtendCall) -> None:
        """Extend the job's time. Raises `FEATURE_NOT_SUPPORTED_BY_PROVIDER` without a call."""
        await self._require(call.job, "timeExtension", lambda support: support.time_extension)
        async with _heartbeats():
            await self._http.post(
                "/extend", ExtendItem(job=call.job, requested_time=call.requested_time)
            )

    @activity.defn
    async def suspend(self, call: ProviderCall) -> None:
        """Suspend the job. Raises `FEATURE_NOT_SUPPORTED_BY_PROVIDER` without a call."""
        await self._require(call.job, "suspension", lambda support: support.suspension)
        async with _heartbeats():
            await self._http.post("/suspend", JobReference(job=call.job))

    @activity.defn
    async def unsuspend(self, call: ProviderCall) -> None:
        """Resume the job. Raises `FEATURE_NOT_SUPPORTED_BY_PROVIDER` without a call."""
        await self._require(call.job, "suspension", lambda support: support.suspension)
        async with _heartbeats():
            await self._http.post("/unsuspend", JobReference(job=call.job))

    @activity.defn
    async def open_session(self, call: OpenSessionCall) -> OpenSession:
        """Open a session. Raises `FEATURE_NOT_SUPPORTED_BY_PROVIDER` without a call."""
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
        """Open a session for the logs of a job, which may have ended: a standalone activity.

        Raises `FEATURE_NOT_SUPPORTED_BY_PROVIDER` without a call, and `PROVIDER_REJECTED`.
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
            raise rejection(ErrorCode.PROVIDER_REJECTED, text)
        return session

    async def _require_session(self, job: Job, session_type: SessionType) -> None:
        match session_type:
            case SessionType.SHELL:
                await self._require(job, "terminal", lambda support: support.terminal)
            case SessionType.WEB:
                await self._require(job, "web", lambda support: support.web)
            case SessionType.VNC:
                await self._require(job, "vnc", lambda support: support.vnc)
            case SessionType.LOGS:
                await self._require(job, "logs", lambda support: support.logs)
        application = self._catalog().application(job.specification.application)
        interfaces = {
            SessionType.WEB: application and application.web,
            SessionType.VNC: application and application.vnc,
        }
        if session_type in interfaces and interfaces[session_type] is None:
            text = (
                f"The application {job.specification.application} has no interface of type "
                f"{session_type}."
            )
            raise rejection(ErrorCode.VERIFICATION_FAILED, text)

    async def _create(self, jobs: Sequence[Job]) -> list[CreateResponse]:
        for job in jobs:
            self._submissions.started(job.id)
        try:
            answers = await self._http.create(*map(self._resolve, jobs))
        except ApplicationError as error:
            if error.non_retryable:
                self._submissions.finished(*(job.id for job in jobs))
            raise
        self._submissions.finished(*(job.id for job in jobs))
        # If this fails, the activity repeats the submission. Without the mark, the provider check
        # would not notice the loss of these jobs.
        await self._claims.mark_submitted([job.id for job in jobs])
        return answers

    def _resolve(self, job: Job) -> Job:
        catalog = self._catalog()
        application = catalog.application(job.specification.application)
        tool = catalog.tool(application.tool) if application else None
        product = catalog.product(job.specification.product)
        if application is None or tool is None or product is None:
            raise rejection(
                ErrorCode.VERIFICATION_FAILED,
                f"The application {job.specification.application} or the product "
                f"{job.specification.product} has left the catalog.",
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
        self, job: Job, feature: str, is_supported: Callable[[BackendSupport], bool]
    ) -> None:
        catalog = self._catalog()
        application = catalog.application(job.specification.application)
        tool = catalog.tool(application.tool) if application else None
        support = await self._products.find_support(job.specification.product, catalog)
        if tool is None or support is None or not is_supported(tool.backend.support_in(support)):
            raise rejection(
                ErrorCode.FEATURE_NOT_SUPPORTED_BY_PROVIDER,
                f"The provider {job.specification.product.provider} does not support {feature} "
                f"on {job.specification.product.id}.",
            )


@asynccontextmanager
async def _heartbeats() -> AsyncIterator[None]:
    """Send heartbeats during a call: they deliver cancellation, and their end shows a crash."""

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
