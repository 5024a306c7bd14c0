"""The provider's HTTP server: what it is made of, and who may call it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from ucloud_orchestrator.provider.api.follow import Follow
from ucloud_orchestrator.provider.api.jobs import JobCalls
from ucloud_orchestrator.provider.api.monitoring import serve_monitoring
from ucloud_orchestrator.provider.api.request_body import on_http, on_invalid, on_invalid_id
from ucloud_orchestrator.provider.auth.authentication import Authentication, read_public_key
from ucloud_orchestrator.provider.auth.session_tokens import SessionTokens
from ucloud_orchestrator.provider.errors import (
    ExecutorError,
    InvalidJobId,
    NotAuthenticated,
    RequestRejected,
)
from ucloud_orchestrator.provider.jobs.database import DATABASE_FILE, JobDatabase
from ucloud_orchestrator.provider.jobs.orphans import OpenJobs, OrphanCollector
from ucloud_orchestrator.provider.jobs.reconciler import Reconciler
from ucloud_orchestrator.provider.jobs.reporter import Reporter, Reports
from ucloud_orchestrator.provider.sessions.logs import LogSessions
from ucloud_orchestrator.provider.sessions.pages import Assets
from ucloud_orchestrator.provider.sessions.sessions import Sessions
from ucloud_orchestrator.provider.sessions.web import WebSessions
from ucloud_orchestrator.provider.settings import ProviderSettings
from ucloud_orchestrator.temporal import tracing

Lifespan = Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]


def create_server(
    settings: ProviderSettings, reports: Reports | None = None, open_jobs: OpenJobs | None = None
) -> FastAPI:
    """Build the server.

    `reports` and `open_jobs` take the place of the orchestrator's own `ProviderClient`.
    """
    database = JobDatabase(settings.data_dir / DATABASE_FILE)
    reconciler = Reconciler(settings, database)
    orphans = OrphanCollector(
        database, settings.id, settings.check_interval, reconciler.wake, open_jobs
    )
    reporter = Reporter(database, settings.id, reconciler.has_reports, reconciler.metrics, reports)
    authentication = Authentication(read_public_key(settings.public_key_file), settings.issuer)
    prefix = f"/ucloud/{settings.id}/sessions"
    tokens = SessionTokens(settings.data_dir / "session-secret", settings.session_lifetime)
    web = _web_sessions(settings, prefix, tokens, reconciler)
    sessions = Sessions(prefix, tokens, reconciler, web)
    logs = LogSessions(prefix, tokens, database, reconciler.directories.output, reconciler.metrics)
    calls = JobCalls(settings, database, reconciler, sessions, logs, orphans)
    follow = Follow(database, reconciler.directories, authentication)

    app = FastAPI(
        title="UCloud compute provider",
        lifespan=_lifespan(settings, database, reconciler, reporter, orphans),
        docs_url=None,
        redoc_url=None,
    )
    _add_error_handlers(app)
    _authenticate_calls(app, authentication, prefix)
    for router in (calls.router(), sessions.router(), logs.router(), follow.router(settings.id)):
        app.include_router(router)
    app.mount(f"{prefix}/static", Assets())
    app.add_middleware(web.middleware)
    return app


def _web_sessions(
    settings: ProviderSettings, prefix: str, tokens: SessionTokens, reconciler: Reconciler
) -> WebSessions:
    return WebSessions(
        f"{prefix}/web",
        settings.public_url,
        settings.web_domain,
        tokens,
        SessionTokens(settings.data_dir / "cookie-secret"),
        reconciler,
    )


def _lifespan(
    settings: ProviderSettings,
    database: JobDatabase,
    reconciler: Reconciler,
    reporter: Reporter,
    orphans: OrphanCollector,
) -> Lifespan:
    """Run the background tasks while the server serves. Jobs outlive them."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await database.open()
        tasks = [asyncio.create_task(part.run()) for part in (reconciler, reporter, orphans)]
        try:
            async with serve_monitoring(settings, database, reconciler):
                yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await database.close()

    return lifespan


def _authenticate_calls(app: FastAPI, authentication: Authentication, sessions_prefix: str) -> None:
    """Require the orchestrator's token of every call but sessions, which have their own."""

    @app.middleware("http")
    async def authenticate(
        request: Request, proceed: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        if request.scope["path"].startswith(f"{sessions_prefix}/"):
            return await proceed(request)
        try:
            authentication.check(request.headers.get("authorization"))
        except NotAuthenticated as error:
            return JSONResponse({"why": str(error)}, 401)
        with tracing.server_span(f"{request.method} {request.url.path}", request.headers):
            response = await proceed(request)
            tracing.set_status(response.status_code)
        return response


def _add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(RequestRejected, _on_rejected)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(InvalidJobId, on_invalid_id)
    app.add_exception_handler(ExecutorError, _on_executor_error)


async def _on_rejected(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestRejected)
    body = {"why": str(error)} | ({"errorCode": error.code.value} if error.code else {})
    return JSONResponse(body, error.status)


async def _on_executor_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ExecutorError)
    return JSONResponse({"why": str(error)}, 503 if error.is_transient else 400)
