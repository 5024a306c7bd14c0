"""The calls about jobs of UCloud's compute provider API."""

from __future__ import annotations

import asyncio
from typing import Any

import psutil
from fastapi import APIRouter, Request

from ucloud_orchestrator.models.job import MAXIMUM_HOURS, Job, JobState, JobUpdate, SimpleDuration
from ucloud_orchestrator.models.provider_api import (
    BulkRequest,
    BulkResponse,
    CpuAndMemory,
    CreateResponse,
    ExtendItem,
    JobReference,
    ProductsResponse,
    QueueStatus,
    Utilization,
)
from ucloud_orchestrator.models.session import OpenSession, SessionItem, SessionType
from ucloud_orchestrator.provider.api.job_check import JobCheck
from ucloud_orchestrator.provider.api.request_body import REJECTIONS, bounded_route, ids_in
from ucloud_orchestrator.provider.errors import (
    JobAlreadyTerminated,
    RequestRejected,
    SessionNotSupported,
)
from ucloud_orchestrator.provider.jobs.database import JobDatabase
from ucloud_orchestrator.provider.jobs.orphans import OrphanCollector
from ucloud_orchestrator.provider.jobs.reconciler import Reconciler
from ucloud_orchestrator.provider.sessions.logs import LogSessions
from ucloud_orchestrator.provider.sessions.sessions import Sessions
from ucloud_orchestrator.provider.settings import ProviderSettings
from ucloud_orchestrator.temporal import tracing


class JobCalls:
    """The handlers of the calls, each a method. All of them raise `RequestRejected`."""

    def __init__(
        self,
        settings: ProviderSettings,
        database: JobDatabase,
        reconciler: Reconciler,
        sessions: Sessions,
        logs: LogSessions,
        orphans: OrphanCollector,
    ) -> None:
        self._settings = settings
        self._database = database
        self._reconciler = reconciler
        self._sessions = sessions
        self._logs = logs
        self._orphans = orphans
        self._check = JobCheck(settings, database, reconciler)

    def router(self) -> APIRouter:
        router = APIRouter(
            prefix=f"/ucloud/{self._settings.id}/jobs",
            route_class=bounded_route(self._settings.maximum_request_bytes),
            responses=REJECTIONS,
        )
        router.add_api_route("", self.create, methods=["POST"], include_in_schema=False)
        router.add_api_route("/", self.create, methods=["POST"])
        router.add_api_route("/terminate", self.terminate, methods=["POST"])
        router.add_api_route("/extend", self.extend, methods=["POST"])
        router.add_api_route("/suspend", self.suspend, methods=["POST"])
        router.add_api_route("/unsuspend", self.unsuspend, methods=["POST"])
        router.add_api_route("/interactiveSession", self.interactive_session, methods=["POST"])
        router.add_api_route("/verify", self.verify, methods=["POST"])
        router.add_api_route("/retrieveProducts", self.retrieve_products, methods=["GET"])
        router.add_api_route("/retrieveUtilization", self.retrieve_utilization, methods=["GET"])
        return router

    async def create(self, request: BulkRequest[Job]) -> dict[str, Any]:
        """Accept all jobs or none. Idempotent."""
        tracing.set_job_ids(ids_in(request.items))
        for job in request.items:
            if await self._database.find(job.id) is None:  # a repeat was checked when it came
                await self._check(job)
        try:
            await self._database.accept(request.items)
        except JobAlreadyTerminated as error:
            raise RequestRejected(str(error), 409) from error
        updates = await asyncio.gather(
            *(self._reconciler.wait_for_start(job.id) for job in request.items)
        )
        responses = [
            CreateResponse(id=job.id, updates=reported)
            for job, reported in zip(request.items, updates, strict=True)
        ]
        return BulkResponse[CreateResponse](responses=responses).to_wire()

    async def terminate(self, request: BulkRequest[Job]) -> dict[str, Any]:
        """Stop jobs. An unknown job will never start; an ended job stays as it is. Idempotent."""
        tracing.set_job_ids(ids_in(request.items))
        await self._database.request_stop([job.id for job in request.items])
        self._reconciler.wake()
        return _empty(len(request.items))

    async def extend(self, request: BulkRequest[ExtendItem]) -> dict[str, Any]:
        """Store the longer allocations, which the orchestrator enforces; also inform schedulers."""
        tracing.set_job_ids(ids_in(request.items))
        for item in request.items:
            record = await self._database.find(item.job.id)
            if record is None or record.has_ended:
                raise RequestRejected(f"There is no live job {item.job.id} here.", 404)
            extended = _extended(record.job, item)
            await self._reconciler.executor_of(extended).extend(extended)
            await self._database.update_job(extended)
        return _empty(len(request.items))

    async def suspend(self, request: BulkRequest[JobReference]) -> dict[str, Any]:
        """Hold the processes of running jobs."""
        tracing.set_job_ids(ids_in(request.items))
        for item in request.items:
            if not await self._reconciler.suspend(item.job.id):
                raise RequestRejected(f"The job {item.job.id} does not run here.", 404)
        return _empty(len(request.items))

    async def unsuspend(self, request: BulkRequest[JobReference]) -> dict[str, Any]:
        """Let held processes continue."""
        tracing.set_job_ids(ids_in(request.items))
        for item in request.items:
            if not await self._reconciler.unsuspend(item.job.id):
                raise RequestRejected(f"The job {item.job.id} does not run here.", 404)
        return _empty(len(request.items))

    async def interactive_session(
        self, request: BulkRequest[SessionItem], http: Request
    ) -> dict[str, Any]:
        """Return addresses at which clients and browsers open sessions, each with a token."""
        tracing.set_job_ids(ids_in(request.items))
        base_url = self._settings.public_url or str(http.base_url)
        opened = [await self._open_session(item, base_url) for item in request.items]
        return {"responses": [session.to_wire() for session in opened]}

    async def _open_session(self, item: SessionItem, base_url: str) -> OpenSession:
        if item.session_type is SessionType.LOGS:
            if (session := await self._logs.open(item, base_url)) is None:
                raise RequestRejected(f"The job {item.job.id} is not known here.", 404)
            return session
        job = await self._reconciler.running_job(item.job.id)
        if job is None or await self._reconciler.exec_target(job.id, item.rank) is None:
            raise RequestRejected(
                f"Rank {item.rank} of the job {item.job.id} does not run here.", 404
            )
        try:
            return self._sessions.open(item, job, base_url)
        except SessionNotSupported as error:
            raise RequestRejected(str(error), code=error.code) from error

    async def verify(self, request: BulkRequest[Job]) -> dict[str, Any]:
        """Report the end of each job that is not known here. Starts no job. Idempotent."""
        tracing.set_job_ids(ids_in(request.items))
        for job in request.items:
            if await self._database.find(job.id) is None:
                text = "Your job is no longer available at the provider."
                await self._database.add_report(
                    job.id, JobUpdate(state=JobState.FAILURE, status=text)
                )
                self._reconciler.has_reports.set()
        self._orphans.request_check()
        return _empty(len(request.items))

    async def retrieve_products(self) -> dict[str, Any]:
        """Return the products and what can be done with each.

        The call also starts a check for orphans.
        """
        self._orphans.request_check()
        return ProductsResponse(responses=self._settings.offered_products).to_wire()

    async def retrieve_utilization(self) -> dict[str, Any]:
        """Return how full this machine is; memory is in bytes."""
        cores, memory = psutil.cpu_count() or 1, psutil.virtual_memory()
        running, pending = self._reconciler.counts()
        used = CpuAndMemory(
            cpu=cores * psutil.cpu_percent() / 100, memory=memory.total - memory.available
        )
        capacity = CpuAndMemory(cpu=cores, memory=memory.total)
        queue = QueueStatus(running=running, pending=pending)
        return Utilization(capacity=capacity, used_capacity=used, queue_status=queue).to_wire()


def _extended(job: Job, item: ExtendItem) -> Job:
    """Return the job with the allocation of the item's job and the requested time added."""
    before = item.job.specification.time_allocation
    milliseconds = (before.milliseconds if before else 0) + item.requested_time.milliseconds
    if milliseconds > MAXIMUM_HOURS * 3_600_000:
        raise RequestRejected(f"The whole time allocation can be {MAXIMUM_HOURS} hours at most.")
    specification = job.specification.model_copy(
        update={"time_allocation": SimpleDuration.from_milliseconds(milliseconds)}
    )
    return job.model_copy(update={"specification": specification})


def _empty(count: int) -> dict[str, Any]:
    return {"responses": [{}] * count}
