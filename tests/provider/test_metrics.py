"""What Prometheus, a load balancer and a log collector get from a provider."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError
from websockets.asyncio.client import connect

from tests.builders import shell_job
from tests.provider.provider_process import Reports, Served, serving
from tests.waiting import eventually
from ucloud_orchestrator.cli.supervisor import free_port
from ucloud_orchestrator.process.logging import configure_logging
from ucloud_orchestrator.process.settings import MonitoredSettings
from ucloud_orchestrator.process.worker_settings import WorkerSettings
from ucloud_orchestrator.provider.settings import ProviderSettings


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Served]:
    served = Served(tmp_path, Reports())
    served.settings.metrics_address = f"127.0.0.1:{free_port()}"
    served.settings.health_port = free_port()
    async with serving(served):
        yield served


async def metrics(served: Served) -> dict[tuple[str, str], float]:
    """Every sample by its name and its only label's value, which is empty if it has none."""
    async with httpx.AsyncClient(verify=False) as client:
        answer = await client.get(f"http://{served.settings.metrics_address}/metrics")
    return {
        (sample.name, "".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_starts_and_ends_are_counted_by_kind(watched: Served) -> None:
    ending, stopped = [shell_job("true"), shell_job("exit 3")], shell_job("sleep 300")
    for job in (*ending, stopped):
        assert (await watched.call("", job)).status_code == 200
    for job in ending:
        await watched.end_of(job)
    await eventually(lambda: watched.still_runs(stopped))
    seen = await metrics(watched)
    assert {
        state: seen["ucloud_provider_jobs", state] for state in ("waiting", "running", "stopping")
    } == {
        "waiting": 0,
        "running": 1,
        "stopping": 0,
    }
    assert (await watched.call("terminate", stopped)).status_code == 200
    await watched.end_of(stopped)
    seen = await metrics(watched)
    assert seen["ucloud_provider_jobs_started_total", ""] == 3
    kinds = {
        kind: seen["ucloud_provider_jobs_ended_total", kind]
        for kind in ("success", "failure", "stopped")
    }
    assert kinds == {"success": 2, "failure": 0, "stopped": 1}
    assert seen["ucloud_provider_jobs", "running"] == 0
    assert seen["ucloud_provider_reconcile_seconds_count", ""] > 0


async def test_undelivered_reports_are_in_the_metrics(watched: Served) -> None:
    watched.reports.is_down = True
    job = shell_job("true")
    assert (await watched.call("", job)).status_code == 200

    async def waiting() -> bool:
        seen = await metrics(watched)
        return (
            seen["ucloud_provider_unanswered_reports", "update"]
            > 0
            < seen["ucloud_provider_report_failures_total", ""]
        )

    await eventually(waiting)
    watched.reports.is_down = False
    await watched.end_of(job)

    async def are_delivered() -> bool:
        seen = await metrics(watched)
        return seen["ucloud_provider_unanswered_reports", "update"] == 0

    await eventually(are_delivered)


async def test_open_sessions_are_counted(watched: Served) -> None:
    job = shell_job("sleep 300")
    assert (await watched.call("", job)).status_code == 200
    await eventually(lambda: watched.still_runs(job))
    item = {"job": job, "rank": 0, "sessionType": "LOGS"}
    (session,) = (await watched.call("interactiveSession", item)).json()["responses"]

    async def open_sessions() -> float:
        return (await metrics(watched))["ucloud_provider_sessions_open", "logs"]

    assert await open_sessions() == 0
    async with connect(session["url"]):
        await eventually(open_sessions)

    async def none_is_open() -> bool:
        return await open_sessions() == 0

    await eventually(none_is_open)
    assert (await watched.call("terminate", job)).status_code == 200
    await watched.end_of(job)


async def test_metrics_are_not_at_the_public_address(watched: Served) -> None:
    public = urlsplit(watched.url).port
    async with httpx.AsyncClient(verify=False) as client:
        for path in ("/metrics", "/healthz", "/readyz"):
            assert (await client.get(f"http://127.0.0.1:{public}{path}")).status_code == 401


async def test_a_provider_without_its_database_is_not_ready(watched: Served) -> None:
    health = f"http://127.0.0.1:{watched.settings.health_port}"
    async with httpx.AsyncClient(verify=False) as client:
        assert (await client.get(f"{health}/healthz")).json() == {"status": "alive"}
        assert (await client.get(f"{health}/readyz")).json() == {
            "status": "ready",
            "database": "ok",
            "jobs": "ok",
        }
        for file in (watched.folder / "provider").glob("provider.sqlite*"):
            file.write_bytes(b"This is not a database.")
        ready = await client.get(f"{health}/readyz")
    assert ready.status_code == 503
    assert "DatabaseError" in ready.json()["database"]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Standard error as a log collector gets it; afterwards logging is as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    collected = io.StringIO()
    monkeypatch.setattr("sys.stderr", collected)
    configure_logging("INFO", "json")
    yield collected
    root.handlers[:] = handlers
    root.setLevel(level)


async def test_every_line_about_a_job_has_its_id(log: io.StringIO, watched: Served) -> None:
    jobs = [shell_job("true"), shell_job("exit 1")]
    for job in jobs:
        assert (await watched.call("", job)).status_code == 200
    for job in jobs:
        await watched.end_of(job)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    for job in jobs:
        about_it = [line for line in lines if line["job"] == job["id"]]
        assert [line["message"].split()[0] for line in about_it] == ["Started", "Job"]
        assert all(job["id"] not in line["message"] for line in lines if line not in about_it)


@pytest.mark.parametrize("kind", [ProviderSettings, WorkerSettings])
@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:many", ":9465", "127.0.0.1:99999"])
def test_an_address_must_be_host_and_port(kind: type[MonitoredSettings], address: str) -> None:
    with pytest.raises(ValidationError, match="metrics_address"):
        kind(metrics_address=address)
