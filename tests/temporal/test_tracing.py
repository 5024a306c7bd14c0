"""Traces are off by default, and an error names the missing extra."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from client import Actor, JobClient, OrchestratorError
from ucloud_orchestrator.temporal import tracing


def test_without_a_collector_nothing_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tracing.ENDPOINT_VARIABLE, raising=False)
    headers: dict[str, str] = {}
    with tracing.client_span("POST /", headers, ["job"]):
        assert headers == {}
    assert tracing.interceptors() == []


async def test_an_error_names_the_extra_for_missing_libraries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(tracing.ENDPOINT_VARIABLE, "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "temporalio.contrib.opentelemetry", None)
    with pytest.raises(OrchestratorError, match="extra 'observability'"):
        await JobClient.connect(Actor(username="alice"))


UNAVAILABLE = """
import os, time
from ucloud_orchestrator.temporal import tracing
tracing.start("test")
with tracing.client_span("POST /", {}, ["job"]):
    pass
begin = time.monotonic()
tracing.stop()
print(time.monotonic() - begin, flush=True)
os._exit(0)
"""


def test_an_unavailable_collector_does_not_delay_shutdown() -> None:
    environment = {**os.environ, tracing.ENDPOINT_VARIABLE: "http://127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-c", UNAVAILABLE],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) < tracing.FLUSH_TIMEOUT + 1
    assert done.stderr == ""
