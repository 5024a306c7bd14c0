"""What Prometheus, a load balancer and a log collector get from a worker, against what the archive
says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.end_to_end.running_stack import Stack, eventually
from ucloud_orchestrator.cli.supervisor import free_port

METRICS, HEALTH = free_port(), free_port()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UCLOUD_METRICS_ADDRESS", f"127.0.0.1:{METRICS}")
        patch.setenv("UCLOUD_HEALTH_PORT", str(HEALTH))
        patch.setenv("UCLOUD_LOG_FORMAT", "json")
        running = Stack(tmp_path_factory.mktemp("figures"))
        yield running
        running.stop()


def figure(name: str, **labels: str) -> float | None:
    """The sample of that name and these labels; None if there is none."""
    for line in httpx.get(f"http://127.0.0.1:{METRICS}/metrics").text.splitlines():
        if line.startswith(f"{name}{{") and all(
            f'{label}="{value}"' in line for label, value in labels.items()
        ):
            return float(line.rpartition(" ")[2])
    return None


def test_the_figures_are_those_of_the_archive(stack: Stack) -> None:
    ended = [stack.submit(name) for name in ("word-count.yaml", "exit-3.yaml")]
    for job_id in ended:
        stack.reached(job_id, "SUCCESS")
    running = stack.sleeping(300)
    stack.reached(running, "RUNNING")
    assert stack.run("submit", str(stack.job_file("no-such", "1"))).returncode == 2
    archived = len(stack.json("list", "--state", "SUCCESS"))
    assert archived == len(ended)
    eventually(
        lambda: figure("ucloud_jobs_archived", provider="local", state="SUCCESS") == archived, 60
    )
    eventually(lambda: figure("ucloud_jobs", provider="local", state="RUNNING") == 1, 60)
    assert (
        figure("ucloud_jobs_ended", provider="local", state="SUCCESS", reason="ended") == archived
    )
    assert figure("ucloud_admissions_rejected", code="VERIFICATION_FAILED") == 1
    assert figure("ucloud_ledger_difference") == 0
    assert figure("ucloud_queue_seconds_count", provider="local") == archived
    assert figure("temporal_workflow_completed") is not None
    assert stack.run("cancel", running).returncode == 0
    stack.reached(running, "SUCCESS")


def test_health_is_told(stack: Stack) -> None:
    assert httpx.get(f"http://127.0.0.1:{HEALTH}/healthz").json() == {"status": "alive"}
    ready = httpx.get(f"http://127.0.0.1:{HEALTH}/readyz")
    assert (ready.status_code, ready.json()) == (
        200,
        {"status": "ready", "database": "ok", "temporal": "ok"},
    )


def test_logs_are_lines_of_json(stack: Stack) -> None:
    lines = (stack.folder / "logs" / "worker.log").read_text().splitlines()
    assert lines
    for line in lines:
        assert {"time", "level", "logger", "message"} <= json.loads(line).keys(), line
