"""Read the health checks and the log of a worker."""

from __future__ import annotations

import json

import httpx

from tests.end_to_end.running_stack import Stack


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
