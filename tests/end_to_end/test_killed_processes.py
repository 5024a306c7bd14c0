"""Kill processes of a stack, or stop all: no job is lost, and none is started twice."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator

import psutil
import pytest

from tests.end_to_end.running_stack import COMMAND, Stack
from tests.waiting import wait_until

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    running = Stack(tmp_path_factory.mktemp("stack"), environment={"UCLOUD_STOP_TIMEOUT": "2"})
    yield running
    running.stop()


@pytest.mark.parametrize("part", ["worker", "provider", "temporal"])
def test_a_killed_process_loses_no_job(stack: Stack, part: str) -> None:
    cancelled = stack.sleeping(300)
    stack.reached(cancelled, "RUNNING")
    running = stack.sleeping(8)  # on a busy machine two commands take seconds
    stack.reached(running, "RUNNING")
    stack.run("cancel", cancelled)
    stack.kill(part)
    job = stack.reached(running, "SUCCESS")
    assert "exit code 0" in job["updates"][-1]["status"]
    assert stack.output(running, "stdout-0.txt").splitlines() == [
        "I sleep for 8 seconds.",
        "I am awake.",
    ]
    stack.reached(cancelled, "SUCCESS")
    for job_id in (running, cancelled):
        wait_until(lambda job_id=job_id: stack.nothing_is_left_of(job_id))


@pytest.mark.parametrize(
    ("parts", "how"),
    [
        (["provider", "worker"], signal.SIGKILL),
        (["temporal"], signal.SIGKILL),
        (["worker"], signal.SIGTERM),
    ],
    ids=["provider and worker killed", "temporal killed", "worker stopped"],
)
def test_a_kill_during_a_submission_starts_the_job_once(
    stack: Stack, parts: list[str], how: signal.Signals
) -> None:
    line = "-".join([*parts, how.name])
    psutil.Process(stack.pid("provider")).suspend()  # it takes connections, but answers nothing
    command = [
        COMMAND,
        "submit",
        str(stack.appending(line)),
        "--json",
        "--data-dir",
        str(stack.folder),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as submitting:
        query = "WorkflowType='Job' AND ExecutionStatus='Running'"
        wait_until(lambda: stack.temporal("workflow", "list", "--query", query))
        for part in parts:
            stack.kill(part, how)
        psutil.Process(stack.pid("provider")).resume()
        out, _ = submitting.communicate(timeout=80)
    job_id = json.loads(out)["id"]
    stack.reached(job_id, "SUCCESS")
    assert stack.times_started(line) == 1
    wait_until(lambda: stack.nothing_is_left_of(job_id))


def test_a_restarted_provider_reports_a_missed_end(stack: Stack) -> None:
    job_id = str(stack.json("submit", str(stack.appending("after")))["id"])
    wait_until(lambda: stack.processes_of(job_id))
    psutil.Process(stack.pid("provider")).suspend()  # the end comes while it cannot see it
    wait_until(lambda: not stack.processes_of(job_id))
    stack.kill("provider")
    job = stack.reached(job_id, "SUCCESS")
    assert "exit code 0" in job["updates"][-1]["status"]
    assert stack.times_started("after") == 1
    wait_until(lambda: stack.nothing_is_left_of(job_id))


def test_a_restarted_stack_continues_its_jobs(stack: Stack) -> None:
    job_id = stack.sleeping(6)
    stack.reached(job_id, "RUNNING")
    parts = [stack.pid(part) for part in ("provider", "worker", "temporal")]
    stack.process.send_signal(signal.SIGINT)
    wait_until(lambda: not psutil.pid_exists(parts[0]))
    stack.process.send_signal(signal.SIGINT)  # a second Ctrl-C interrupts nothing
    assert stack.process.wait(60) == 0
    assert not any(map(psutil.pid_exists, parts))
    stack.start()
    job = stack.reached(job_id, "SUCCESS")
    assert "exit code 0" in job["updates"][-1]["status"]
