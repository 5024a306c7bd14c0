"""The provider protocol over HTTP, as in UCloud's documentation of the compute provider API."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import psutil
from fastapi import APIRouter, FastAPI, Request, WebSocket, WebSocketDisconnect, WebSocketException
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from ucloud_orchestrator.models.base import error_messages
from ucloud_orchestrator.models.command_line import build_command_line, build_environment
from ucloud_orchestrator.models.errors import ErrorCode
from ucloud_orchestrator.models.job import MAXIMUM_HOURS, Job, JobState, JobUpdate, SimpleDuration
from ucloud_orchestrator.models.provider_api import (
    BulkRequest,
    BulkResponse,
    CpuAndMemory,
    CreateResponse,
    ExtendItem,
    FollowRequest,
    JobReference,
    ProductsResponse,
    QueueStatus,
    Utilization,
)
from ucloud_orchestrator.models.session import SessionItem, SessionType
from ucloud_orchestrator.provider.api.monitoring import serve_monitoring
from ucloud_orchestrator.provider.api.request_body import (
    REFUSALS,
    bounded_route,
    ids_in,
    on_bad_id,
    on_http,
    on_invalid,
)
from ucloud_orchestrator.provider.auth.authentication import Authentication, read_public_key
from ucloud_orchestrator.provider.auth.session_tokens import SessionTokens
from ucloud_orchestrator.provider.errors import (
    ExecutorError,
    InvalidJobId,
    InvalidPath,
    JobAlreadyTerminated,
    NotAuthenticated,
    RequestRejected,
    SessionNotSupported,
)
from ucloud_orchestrator.provider.jobs.database import DATABASE_FILE, JobDatabase
from ucloud_orchestrator.provider.jobs.orphans import OpenJobs, OrphanCollector
from ucloud_orchestrator.provider.jobs.preparation import resolved
from ucloud_orchestrator.provider.jobs.reconciler import Runner
from ucloud_orchestrator.provider.jobs.reporter import Reporter, Reports
from ucloud_orchestrator.provider.network.networks import peers_of
from ucloud_orchestrator.provider.sessions.log_files import stream
from ucloud_orchestrator.provider.sessions.logs import LogSessions
from ucloud_orchestrator.provider.sessions.pages import Assets
from ucloud_orchestrator.provider.sessions.sessions import Sessions
from ucloud_orchestrator.provider.sessions.web import WebSessions
from ucloud_orchestrator.provider.sessions.websocket import received_text, truncate_close_reason
from ucloud_orchestrator.provider.settings import ProviderSettings
from ucloud_orchestrator.temporal import tracing


def create_server(
    settings: ProviderSettings, reports: Reports | None = None, register: OpenJobs | None = None
) -> FastAPI:
    """The server.

    `reports` and `register` take the place of the orchestrator's own `ProviderClient`.
    """
    ledger = JobDatabase(settings.data_dir / DATABASE_FILE)
    runner = Runner(settings, ledger)
    steward = OrphanCollector(ledger, settings.id, settings.check_interval, runner.look, register)
    authentication = Authentication(read_public_key(settings.public_key_file), settings.issuer)
    sessions_prefix = f"/ucloud/{settings.id}/sessions"

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await ledger.open()
        reporter = Reporter(ledger, settings.id, runner.reports_waiting, runner.figures, reports)
        tasks = [asyncio.create_task(part.run()) for part in (runner, reporter, steward)]
        try:
            async with serve_monitoring(settings, ledger, runner):
                yield
        finally:
            # Jobs go on without us; the next start finds them.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await ledger.close()

    app = FastAPI(title="UCloud compute provider", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_exception_handler(RequestRejected, _on_refused)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(InvalidJobId, on_bad_id)
    app.add_exception_handler(ExecutorError, _on_executor)

    @app.middleware("http")
    async def authenticate(
        request: Request, proceed: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        if request.scope["path"].startswith(f"{sessions_prefix}/"):
            return await proceed(request)  # each session has a token of its own
        try:
            authentication.check(request.headers.get("authorization"))
        except NotAuthenticated as error:
            return JSONResponse({"why": str(error)}, 401)
        with tracing.server_span(f"{request.method} {request.url.path}", request.headers):
            answer = await proceed(request)
            tracing.set_status(answer.status_code)
        return answer

    tokens = SessionTokens(settings.data_dir / "session-secret", settings.session_lifetime)
    cookies = SessionTokens(settings.data_dir / "cookie-secret")
    web = WebSessions(
        f"{sessions_prefix}/web",
        settings.public_url,
        settings.web_domain,
        tokens,
        cookies,
        runner,
        runner.networks.reach,
        runner.figures,
    )
    sessions = Sessions(sessions_prefix, tokens, runner, runner.networks.reach, web, runner.figures)
    logs = LogSessions(sessions_prefix, tokens, ledger, runner.folders.output, runner.figures)
    app.include_router(_calls(settings, ledger, runner, sessions, logs, steward))
    app.include_router(sessions.router())
    app.include_router(logs.router())
    app.mount(f"{sessions_prefix}/static", Assets())
    app.add_middleware(web.middleware)
    _add_follow(app, settings, ledger, runner, authentication)
    return app


def _calls(
    settings: ProviderSettings,
    ledger: JobDatabase,
    runner: Runner,
    sessions: Sessions,
    logs: LogSessions,
    steward: OrphanCollector,
) -> APIRouter:
    router = APIRouter(
        prefix=f"/ucloud/{settings.id}/jobs",
        route_class=bounded_route(settings.maximum_request_bytes),
        responses=REFUSALS,
    )
    products = {entry.product: entry.support for entry in settings.offered_products}

    @router.post("", include_in_schema=False)
    @router.post("/")
    async def create(request: BulkRequest[Job]) -> dict[str, Any]:
        """Take all jobs or none; a known one is a repeat."""
        tracing.set_job_ids(ids_in(request.items))
        for job in request.items:
            if await ledger.find(job.id) is None:  # a repeat was checked when it came
                await asyncio.to_thread(_check, job)  # a drive may hang
                await _check_peers(job)
        try:
            await ledger.take(request.items)
        except JobAlreadyTerminated as error:
            raise RequestRejected(str(error), 409) from error
        news = await asyncio.gather(*(runner.wait_for_start(job.id) for job in request.items))
        answers = [
            CreateResponse(id=job.id, updates=said)
            for job, said in zip(request.items, news, strict=True)
        ]
        return BulkResponse[CreateResponse](responses=answers).to_wire()

    def _check(job: Job) -> None:
        support = products.get(job.specification.product)
        if support is None:
            raise RequestRejected(f"There is no product {job.specification.product} here.")
        try:
            application, tool = resolved(job)
            build_command_line(application, job.specification.parameters)
            build_environment(application, job.specification.parameters)
            runner.drives.mounts(job)
        except ValidationError as error:
            raise RequestRejected(
                f"The job's resolved application is not usable: {' '.join(error_messages(error))}"
            ) from error
        except (InvalidPath, ValueError) as error:
            raise RequestRejected(str(error)) from error
        if not tool.backend.support_in(support).enabled:
            why = f"{job.specification.product} does not run applications of type {tool.backend}."
            raise RequestRejected(why, code=ErrorCode.FEATURE_NOT_SUPPORTED_BY_PROVIDER)
        maximum = runner.executor_of(job).maximum_replicas
        if maximum is not None and job.specification.replicas > maximum:
            raise RequestRejected(
                f"A job of {job.specification.product} has {maximum} replicas at most."
            )

    async def _check_peers(job: Job) -> None:
        for peer in peers_of(job):
            taken = await ledger.find(peer.job_id)
            if taken is None or taken.ended:
                raise RequestRejected(
                    f"The peer {peer.hostname} (job {peer.job_id}) does not run at this provider."
                )
            if runner.executor_of(taken.job).assigns_hosts != runner.executor_of(job).assigns_hosts:
                ours, theirs = job.specification.product, taken.job.specification.product
                why = f"cannot be reached from {ours}: choose one that runs where {theirs} does"
                raise RequestRejected(f"The peer {peer.hostname} (job {peer.job_id}) {why}.")

    @router.post("/terminate")
    async def terminate(request: BulkRequest[Job]) -> dict[str, Any]:
        """Stop jobs; one that is unknown will never be started, one that has ended stays so."""
        tracing.set_job_ids(ids_in(request.items))
        await ledger.request_stop([job.id for job in request.items])
        runner.look()
        return _empty(len(request.items))

    @router.post("/extend")
    async def extend(request: BulkRequest[ExtendItem]) -> dict[str, Any]:
        """Keep the longer allocation, which the orchestrator enforces; a scheduler is told of it
        too.
        """
        tracing.set_job_ids(ids_in(request.items))
        for item in request.items:
            taken = await ledger.find(item.job.id)
            if taken is None or taken.ended:
                raise RequestRejected(f"There is no live job {item.job.id} here.", 404)
            before = item.job.specification.time_allocation
            milliseconds = (before.milliseconds if before else 0) + item.requested_time.milliseconds
            if milliseconds > MAXIMUM_HOURS * 3_600_000:
                raise RequestRejected(
                    f"The whole time allocation can be {MAXIMUM_HOURS} hours at most."
                )
            specification = taken.job.specification.model_copy(
                update={"time_allocation": SimpleDuration.from_milliseconds(milliseconds)}
            )
            extended = taken.job.model_copy(update={"specification": specification})
            await runner.executor_of(extended).extend(extended)
            await ledger.replace(extended)
        return _empty(len(request.items))

    @router.post("/suspend")
    async def suspend(request: BulkRequest[JobReference]) -> dict[str, Any]:
        """Hold the processes of running jobs."""
        tracing.set_job_ids(ids_in(request.items))
        for item in request.items:
            if not await runner.suspend(item.job.id):
                raise RequestRejected(f"The job {item.job.id} does not run here.", 404)
        return _empty(len(request.items))

    @router.post("/unsuspend")
    async def unsuspend(request: BulkRequest[JobReference]) -> dict[str, Any]:
        """Let held processes go on."""
        tracing.set_job_ids(ids_in(request.items))
        for item in request.items:
            if not await runner.unsuspend(item.job.id):
                raise RequestRejected(f"The job {item.job.id} does not run here.", 404)
        return _empty(len(request.items))

    @router.post("/interactiveSession")
    async def interactive_session(
        request: BulkRequest[SessionItem], http: Request
    ) -> dict[str, Any]:
        """Addresses at which clients and browsers open sessions, each with a token."""
        tracing.set_job_ids(ids_in(request.items))
        base_url = settings.public_url or str(http.base_url)
        opened = []
        for item in request.items:
            if item.session_type is SessionType.LOGS:
                if (session := await logs.open(item, base_url)) is None:
                    raise RequestRejected(f"The job {item.job.id} is not known here.", 404)
                opened.append(session.to_wire())
                continue
            job = await runner.running_job(item.job.id)
            if job is None or await runner.exec_target(job.id, item.rank) is None:
                raise RequestRejected(
                    f"Rank {item.rank} of the job {item.job.id} does not run here.", 404
                )
            try:
                opened.append(sessions.open(item, job, base_url).to_wire())
            except SessionNotSupported as error:
                raise RequestRejected(str(error), code=error.code) from error
        return {"responses": opened}

    @router.post("/verify")
    async def verify(request: BulkRequest[Job]) -> dict[str, Any]:
        """Report the end of each job that is not known here; none is ever started."""
        tracing.set_job_ids(ids_in(request.items))
        for job in request.items:
            if await ledger.find(job.id) is None:
                text = "Your job is no longer available at the provider."
                await ledger.report(job.id, JobUpdate(state=JobState.FAILURE, status=text))
                runner.reports_waiting.set()
        steward.look()
        return _empty(len(request.items))

    @router.get("/retrieveProducts")
    async def retrieve_products() -> dict[str, Any]:
        """What is offered, and what can be done with it.

        Being asked also brings a look for jobs without an owner.
        """
        steward.look()
        return ProductsResponse(responses=settings.offered_products).to_wire()

    @router.get("/retrieveUtilization")
    async def retrieve_utilization() -> dict[str, Any]:
        """How full this machine is; memory is in bytes."""
        cores, memory = psutil.cpu_count() or 1, psutil.virtual_memory()
        running, pending = runner.counts()
        used = CpuAndMemory(
            cpu=cores * psutil.cpu_percent() / 100, memory=memory.total - memory.available
        )
        capacity = CpuAndMemory(cpu=cores, memory=memory.total)
        queue = QueueStatus(running=running, pending=pending)
        return Utilization(capacity=capacity, used_capacity=used, queue_status=queue).to_wire()

    return router


def _add_follow(
    app: FastAPI,
    settings: ProviderSettings,
    ledger: JobDatabase,
    runner: Runner,
    authentication: Authentication,
) -> None:
    @app.websocket(f"/ucloud/{settings.id}/jobs/follow")
    async def follow(socket: WebSocket) -> None:
        """Stream a job's output; `{type: cancel}` or closing the connection ends it."""
        try:
            authentication.check(socket.headers.get("authorization"))
        except NotAuthenticated as error:
            raise WebSocketException(1008, str(error)) from error
        await socket.accept()
        with contextlib.suppress(WebSocketDisconnect):
            try:
                request = FollowRequest.model_validate_json(await received_text(socket))
            except ValidationError as error:
                await socket.close(1003, truncate_close_reason(" ".join(error_messages(error))))
                return
            taken = await ledger.find(request.job.id) if request.job else None
            if request.type != "init" or taken is None:
                await socket.close(
                    1003, "The first message must be init, with a job that is known here."
                )
                return
            sending = asyncio.create_task(_send_output(socket, ledger, runner, taken.job))
            listening = asyncio.create_task(_wait_for_cancel(socket))
            try:
                await asyncio.wait({sending, listening}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (sending, listening):
                    task.cancel()
                await asyncio.gather(sending, listening, return_exceptions=True)
            with contextlib.suppress(RuntimeError):  # it may be closed from the other side
                await socket.close()


async def _send_output(socket: WebSocket, ledger: JobDatabase, runner: Runner, job: Job) -> None:
    async def has_ended() -> bool:
        taken = await ledger.find(job.id)
        return taken is None or taken.ended

    folder = runner.folders.output(job.id)
    async for message in stream(folder, job.specification.replicas, str(uuid.uuid4()), has_ended):
        await socket.send_json(message.to_wire())


async def _wait_for_cancel(socket: WebSocket) -> None:
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            text = await received_text(socket)
            with contextlib.suppress(ValidationError):
                if FollowRequest.model_validate_json(text).type == "cancel":
                    return


def _empty(count: int) -> dict[str, Any]:
    return {"responses": [{}] * count}


async def _on_refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestRejected)
    body = {"why": str(error)} | ({"errorCode": error.code.value} if error.code else {})
    return JSONResponse(body, error.status)


async def _on_executor(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ExecutorError)
    return JSONResponse({"why": str(error)}, 503 if error.is_transient else 400)
