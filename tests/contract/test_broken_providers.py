"""The suite detects each fault: the minimal provider with one thing broken fails one case."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from temporalio.client import Client

from tests.contract import (
    test_answers,
    test_authentication,
    test_charges,
    test_jobs,
    test_replicas,
    test_sessions,
)
from tests.contract.conftest import DEFAULT_PRODUCT, jobs_on
from tests.contract.orchestrator import ContractOrchestrator, ProviderUnderTest
from tests.waiting import eventually
from ucloud_orchestrator.setup import make_keys

pytestmark = pytest.mark.long

EXAMPLE = Path(__file__).parents[2] / "examples" / "minimal_provider.py"
SERVING = 'uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")\n'
SHORT = 3.0
"""Seconds to wait for a report that will not come."""

Make = Callable[..., dict[str, Any]]
Case = Callable[[ContractOrchestrator, Make], Awaitable[None]]


@dataclass(frozen=True)
class Broken:
    """A change of the example's text, the case that detects it, and its message."""

    old: str
    new: str
    case: Case
    sentence: str
    timeout: float = 20.0


END = "    await report(job, JobState.SUCCESS, text)\n\n"
START = '        await report(job, JobState.RUNNING, "Your job is now running.")\n'
ACCEPTED = "        if job.id not in jobs:\n            jobs[job.id]"
VERIFIED = "        if job.id not in jobs:\n            await report(job, JobState.FAILURE"


def charging(
    indent: int,
    units: int = 1,
    periods: str = "1",
    before: str = "",
    after: str = "",
    price: str = "",
) -> str:
    """Return lines that charge, to be inserted into the example."""
    lines = ["from ucloud_orchestrator.models.provider_api import Charge"]
    lines += [f"charge = Charge(charge_id='one', units={units}, periods={periods})"]
    call = "await (await ProviderClient.connect(ID)).charge(job.id, [charge])"
    lines += [call if price else f"if job.status.resolved_product['pricePerUnit']: {call}"]
    return before + "".join(f"{' ' * indent}{line}\n" for line in lines) + after


def sessions(identifier: str, rank: str) -> str:
    """Return a route that opens a session for any request."""
    session = (
        f'{{"type": "shell", "sessionIdentifier": {identifier}, "jobId": i["job"]["id"], '
        f'"rank": {rank}}}'
    )
    route = '@app.post(f"/ucloud/{ID}/jobs/interactiveSession")\n'
    function = "async def open_session(request: Request) -> Any:\n"
    answer = f'{{"responses": [{session} for i in (await request.json())["items"]]}}'
    return f"{route}{function}    return {answer}\n\n\n"


def each_rank(orchestrator: ContractOrchestrator, job: Make) -> Awaitable[None]:
    return test_sessions.test_a_terminal_is_opened_on_each_rank(
        orchestrator, job, {"terminal": True}
    )


def charged_use(orchestrator: ContractOrchestrator, job: Make) -> Awaitable[None]:
    return test_charges.test_use_is_charged_once_and_before_the_end(orchestrator, job, 2)


BROKEN = {
    "answers a batch with one response": Broken(
        '[{"id": job.id} for job in request.items]',
        '[{"id": job.id} for job in request.items[:1]]',
        test_jobs.test_create_answers_for_each_job,
        "`create` must give one response for each item",
    ),
    "serves requests without a token": Broken(
        '"The request is not the orchestrator\'s."}, 401)\n',
        '"Not the orchestrator."}, 401) if request.headers.get("authorization") else await '
        "proceed(request)\n",
        lambda o, _: test_authentication.test_a_request_without_a_token_is_rejected(o, None),
        "without a bearer token must be answered with 401 or 403",
    ),
    "does not verify signatures": Broken(
        '{"require": required}',
        '{"require": required, "verify_signature": False}',
        lambda o, _: test_authentication.test_a_wrong_token_is_rejected(
            o, "that is signed with another key"
        ),
        "that is signed with another key must be answered with 401 or 403",
    ),
    "starts a repeated create again": Broken(
        ACCEPTED,
        "        if True:\n            jobs[job.id]",
        lambda o, j: test_jobs.test_a_repeated_create_starts_nothing(o, j, {}),
        "A repeated `create` must start nothing",
    ),
    "starts a job that was terminated before": Broken(
        ACCEPTED,
        "        if jobs.get(job.id) is None:\n            jobs[job.id]",
        test_jobs.test_a_job_terminated_before_create_never_starts,
        "after its `terminate` must start nothing",
    ),
    "starts half of a rejected batch": Broken(
        f"    for job in request.items:\n{ACCEPTED}",
        ACCEPTED,
        test_jobs.test_a_batch_with_an_invalid_job_starts_none,
        "No job of a rejected batch may be started",
    ),
    "accepts a job of an unknown product": Broken(
        "        if job.specification.product.model_dump(by_alias=True) != PRODUCT:\n",
        "        if False:\n",
        test_answers.test_an_unknown_product_is_rejected,
        "An unknown product must be rejected",
    ),
    "never reports an end": Broken(
        END,
        "\n\n",
        test_jobs.test_a_job_runs_and_then_ends_once,
        "A provider must report how each job ends",
        SHORT,
    ),
    "reports two ends": Broken(
        END,
        END.replace("\n\n", "\n") * 2 + "\n",
        test_jobs.test_a_job_runs_and_then_ends_once,
        "Exactly one end must be reported",
    ),
    "does not report that a job runs": Broken(
        START,
        "",
        test_jobs.test_a_job_runs_and_then_ends_once,
        "RUNNING must be reported before the end",
    ),
    "reports to other jobs too": Broken(
        "return await client.update(job.id, [JobUpdate(state=state, status=text)])",
        "return [await client.update(one, [JobUpdate(state=state, status=text)]) for one in "
        "jobs][0]",
        test_jobs.test_each_report_goes_to_its_job_only,
        "must go to its own job only",
    ),
    "reports with another provider's id": Broken(
        "ProviderClient.connect(ID)",
        'ProviderClient.connect("another")',
        test_jobs.test_a_job_runs_and_then_ends_once,
        "must name its provider",
    ),
    "reports an exit code as a failure": Broken(
        END,
        END.replace(
            "JobState.SUCCESS", "JobState.SUCCESS if text.endswith(' 0.') else JobState.FAILURE"
        ),
        test_jobs.test_an_exit_code_is_reported_and_is_not_a_failure,
        "exit code is not a FAILURE",
    ),
    "does not stop a terminated job": Broken(
        "task.cancel()",
        "pass",
        test_jobs.test_terminate_ends_a_running_job,
        "A provider must report how each job ends",
        SHORT,
    ),
    "does not report unknown jobs": Broken(
        VERIFIED,
        VERIFIED.replace("job.id not in jobs", "False"),
        test_jobs.test_verify_ends_an_unknown_job,
        "A provider must report how each job ends",
        SHORT,
    ),
    "reports an unknown job as a success": Broken(
        VERIFIED,
        VERIFIED.replace("FAILURE", "SUCCESS"),
        test_jobs.test_verify_ends_an_unknown_job,
        "must not be reported as a SUCCESS",
    ),
    "ends a running job that it verifies": Broken(
        VERIFIED,
        VERIFIED.replace("job.id not in jobs", "True"),
        test_jobs.test_verify_does_not_change_a_running_job,
        "`verify` of a job that runs must change nothing",
    ),
    "does not charge": Broken(
        "", "", charged_use, "Each minute that was begun must be charged once"
    ),
    "charges a minute twice": Broken(
        END,
        charging(4, units=2, periods="job.specification.replicas", after=END),
        charged_use,
        "Each minute that was begun must be charged once",
    ),
    "charges for one replica of two": Broken(
        END, charging(4, after=END), charged_use, "The `periods` of a charge are"
    ),
    "charges after the end": Broken(
        END,
        charging(
            4, periods="job.specification.replicas", before=END.replace("\n\n", "\n"), after="\n\n"
        ),
        charged_use,
        "All use must be charged before a job's end is reported",
    ),
    "charges for a free product": Broken(
        END,
        charging(4, after=END, price="any"),
        test_charges.test_a_free_product_is_not_charged,
        "The use of a free product must not be charged",
    ),
    "continues without credits": Broken(
        START,
        charging(8, before=START),
        test_charges.test_a_job_without_credits_is_stopped,
        "must stop a job when the answer to a charge names it",
        SHORT,
    ),
    "starts one replica of three": Broken(
        "",
        "",
        lambda o, j: test_replicas.test_replicas_know_their_ranks_and_hosts(o, j, {}),
        "/etc/ucloud/rank.txt must hold a rank",
    ),
    "opens rank 0 for every request": Broken(
        SERVING,
        sessions('"secret"', "0") + SERVING,
        each_rank,
        "must name the job and the rank that were asked for",
    ),
    "opens all ranks with one identifier": Broken(
        SERVING,
        sessions('"secret"', 'i["rank"]') + SERVING,
        each_rank,
        "must not share an identifier",
    ),
    "opens ranks that do not exist": Broken(
        SERVING,
        sessions('f"secret {i}"', 'i["rank"]') + SERVING,
        each_rank,
        "a rank that does not exist must be rejected",
    ),
}


@contextlib.asynccontextmanager
async def served(source: str) -> AsyncIterator[str]:
    """Serve the provider of this source text in this process, and yield its address."""
    names: dict[str, Any] = {}
    exec(compile(source.replace(SERVING, ""), EXAMPLE.name, "exec"), names)
    app: FastAPI = names["app"]
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    serving = asyncio.create_task(server._serve())  # without uvicorn's signal handlers
    try:
        await eventually(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        jobs = [task for task in names["jobs"].values() if task is not None]
        for task in jobs:
            task.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)


@pytest.mark.parametrize("what", BROKEN)
async def test_a_provider_that_breaks_the_protocol_is_caught(
    request: pytest.FixtureRequest,
    temporal_client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    if request.config.getoption("contract_provider_url"):
        pytest.skip("Another provider is under test.")
    broken, source = BROKEN[what], EXAMPLE.read_text()
    assert broken.old in source
    make_keys(tmp_path, "local")
    monkeypatch.setenv("TEMPORAL_ADDRESS", temporal_client.service_client.config.target_host)
    monkeypatch.setattr(
        sys, "argv", ["minimal_provider.py", "0", str(tmp_path / "local.public.pem")]
    )
    async with served(source.replace(broken.old, broken.new, 1)) as url:
        provider = ProviderUnderTest(url, "local", (tmp_path / "local.private.pem").read_text())
        orchestrator = ContractOrchestrator(provider, temporal_client, broken.timeout)
        with pytest.raises((AssertionError, pytest.fail.Exception)) as failed:
            await broken.case(orchestrator, jobs_on(provider, DEFAULT_PRODUCT))
    assert broken.sentence in str(failed.value)
