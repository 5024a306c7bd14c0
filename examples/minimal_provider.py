"""A minimal provider: jobs are processes of this machine without a sandbox or a database.

`python examples/minimal_provider.py PORT PUBLIC_KEY_FILE`, with `TEMPORAL_ADDRESS` in the
environment.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import jwt
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from client import JobClosed, ProviderClient
from ucloud_orchestrator.models import Job, JobState, JobUpdate, build_command_line
from ucloud_orchestrator.models.application import Application
from ucloud_orchestrator.models.provider_api import BulkRequest

ID, PRODUCT = "local", {"id": "cpu-1", "category": "cpu", "provider": "local"}
port, public_key = int(sys.argv[1]), Path(sys.argv[2]).read_text()
app = FastAPI()
jobs: dict[str, asyncio.Task[None] | None] = {}  # None: terminated before it was created


@app.middleware("http")
async def authenticate(request: Request, proceed: Any) -> Any:
    try:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        required = ["iat", "exp", "iss", "sub"]
        claims = jwt.decode(
            token, public_key, ["RS256"], {"require": required}, issuer="cloud.sdu.dk"
        )
        assert (claims["sub"], claims.get("role")) == ("_UCloud", "SERVICE")
    except (jwt.InvalidTokenError, AssertionError):
        return JSONResponse({"why": "The request is not the orchestrator's."}, 401)
    return await proceed(request)


@app.exception_handler(RequestValidationError)
@app.exception_handler(ValueError)
async def reject(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"why": str(error)}, 400)


async def report(job: Job, state: JobState, text: str) -> None:
    while True:
        try:
            client = await ProviderClient.connect(ID)
            return await client.update(job.id, [JobUpdate(state=state, status=text)])
        except JobClosed:
            return None
        except Exception:
            await asyncio.sleep(1)


async def run(job: Job, command: list[str]) -> None:
    process = None
    try:
        await report(job, JobState.RUNNING, "Your job is now running.")
        process = await asyncio.create_subprocess_exec(*command)
        text = f"The program ended with exit code {await process.wait()}."
    except asyncio.CancelledError:
        if process is not None:
            process.kill()
        text = "Your job has been cancelled!"
    except OSError as error:
        await report(job, JobState.FAILURE, f"The program could not be started: {error}")
        return
    await report(job, JobState.SUCCESS, text)


@app.post(f"/ucloud/{ID}/jobs/")
async def create(request: BulkRequest[Job]) -> Any:
    commands = {}
    for job in request.items:  # check all jobs before one is started
        if job.specification.product.model_dump(by_alias=True) != PRODUCT:
            raise ValueError("There is no such product here.")
        commands[job.id] = build_command_line(
            Application.model_validate((job.status.resolved_application or {}).get("application")),  # type: ignore
            job.specification.parameters,
        )
    for job in request.items:
        if job.id not in jobs:
            jobs[job.id] = asyncio.create_task(run(job, commands[job.id]))
    return {"responses": [{"id": job.id} for job in request.items]}


@app.post(f"/ucloud/{ID}/jobs/terminate")
async def terminate(request: BulkRequest[Job]) -> Any:
    for job in request.items:
        if (task := jobs.setdefault(job.id, None)) is not None:
            task.cancel()
    return {"responses": [{} for _ in request.items]}


@app.post(f"/ucloud/{ID}/jobs/verify")
async def verify(request: BulkRequest[Job]) -> Any:
    for job in request.items:
        if job.id not in jobs:
            await report(job, JobState.FAILURE, "Your job is not known here.")
    return {"responses": [{} for _ in request.items]}


@app.get(f"/ucloud/{ID}/jobs/retrieveProducts")
async def retrieve_products() -> Any:
    return {"responses": [{"product": PRODUCT, "support": {"native": {"enabled": True}}}]}


uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
