"""Read what Prometheus, a load balancer and a log collector get from a worker."""

from __future__ import annotations

import json

import httpx

from tests.end_to_end.running_stack import Stack
from tests.end_to_end.scrape import Scrape
from tests.waiting import wait_until


def scrape(stack: Stack) -> Scrape:
    return Scrape.of(int(stack.environment["UCLOUD_METRICS_ADDRESS"].rpartition(":")[2]))


def test_metrics_match_the_archive(stack: Stack) -> None:
    before = scrape(stack)
    succeeded = {"provider": "local", "state": "SUCCESS", "reason": "ended"}
    ended = [stack.submit(name) for name in ("word-count.yaml", "exit-3.yaml")]
    for job_id in ended:
        stack.reached(job_id, "SUCCESS")
    running = stack.sleeping(300)
    stack.reached(running, "RUNNING")
    assert stack.run("submit", str(stack.job_file("no-such", "1"))).returncode == 2
    archived = len(stack.json("list", "--state", "SUCCESS"))
    live = len(stack.json("list", "--state", "RUNNING"))
    gauges = {"ucloud_jobs_archived": ("SUCCESS", archived), "ucloud_jobs": ("RUNNING", live)}
    for name, (state, count) in gauges.items():
        wait_until(
            lambda name=name, state=state, count=count: (
                scrape(stack).sum(name, provider="local", state=state) == count
            ),
            60,
        )
    after = scrape(stack)
    for name, labels, more in (
        ("ucloud_jobs_ended", succeeded, 2),
        ("ucloud_admissions_rejected", {"code": "VERIFICATION_FAILED"}, 1),
        ("ucloud_queue_seconds_count", {"provider": "local"}, 2),
    ):
        assert after.sum(name, **labels) - before.sum(name, **labels) == more, name
    assert after.sum("ucloud_ledger_difference") == 0
    assert after.sum("temporal_workflow_completed") > 0
    assert stack.run("cancel", running).returncode == 0
    stack.reached(running, "SUCCESS")


def test_health_is_served(stack: Stack) -> None:
    address = f"http://127.0.0.1:{stack.environment['UCLOUD_HEALTH_PORT']}"
    assert httpx.get(f"{address}/healthz").json() == {"status": "alive"}
    ready = httpx.get(f"{address}/readyz")
    assert (ready.status_code, ready.json()) == (
        200,
        {"status": "ready", "database": "ok", "temporal": "ok"},
    )


def test_logs_are_lines_of_json(stack: Stack) -> None:
    lines = (stack.folder / "logs" / "worker.log").read_text().splitlines()
    assert lines
    for line in lines:
        assert {"time", "level", "logger", "message"} <= json.loads(line).keys(), line
