"""Use the whole stack as users start it: real processes and the command line."""

from __future__ import annotations

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import pytest

from tests.end_to_end.running_stack import ROOT, TEMPORAL, Stack
from tests.waiting import wait_until

MAXIMUM_EVENTS = 25


def test_a_job_from_the_command_line_to_its_files(stack: Stack) -> None:
    job_id = stack.submit("word-count.yaml")
    job = stack.reached(job_id, "SUCCESS")
    assert job["output"]["outputFolder"] == f"/home/Jobs/{job_id}"
    assert stack.output(job_id, "stdout-0.txt").strip() == "402"
    assert len(stack.output(job_id, "words.txt").splitlines()) == 5
    assert [update["state"] for update in job["updates"]] == ["IN_QUEUE", "RUNNING", "SUCCESS"]
    assert job_id in [listed["id"] for listed in stack.json("list")]
    wait_until(lambda: stack.nothing_is_left_of(job_id))


def test_a_complete_job_has_at_most_25_events(stack: Stack) -> None:
    job_id = stack.sleeping(2)
    job = stack.reached(job_id, "SUCCESS")
    assert "RUNNING" in [update.get("state") for update in job["updates"]]
    history = stack.temporal("workflow", "show", "-w", job_id)
    assert len(history["events"]) <= MAXIMUM_EVENTS


def test_each_replica_knows_its_rank(stack: Stack) -> None:
    job_id = stack.submit("replicas.yaml")
    stack.reached(job_id, "SUCCESS")
    for rank in range(3):
        lines = stack.output(job_id, f"stdout-{rank}.txt").splitlines()
        assert lines[0] == f"I am rank {rank} of 3 of job {job_id}."
        assert [line.partition(":")[0] for line in lines[1:]] == [
            f"node-{other}.txt" for other in range(3)
        ]
        assert all(ip_address(line.partition(":")[2]) for line in lines[1:])


def test_a_success_has_its_exit_code(stack: Stack) -> None:
    done = stack.run("submit", str(ROOT / "examples/jobs/exit-3.yaml"), "--follow")
    assert done.returncode == 0
    assert "exit code 3" in done.stdout


def test_an_operator_cancels_by_temporal(stack: Stack) -> None:
    job_id = stack.sleeping(300)
    stack.reached(job_id, "RUNNING")
    wait_until(lambda: len(stack.processes_of(job_id)) > 1)
    subprocess.run(
        [TEMPORAL, "workflow", "cancel", "-w", job_id, "--address", stack.ready["temporal"]],
        check=True,
    )
    began = time.monotonic()
    wait_until(lambda: not stack.processes_of(job_id))
    assert time.monotonic() - began < 5
    job = stack.reached(job_id, "SUCCESS")
    assert [update["state"] for update in job["updates"]][-2:] == ["CANCELING", "SUCCESS"]
    described = stack.temporal("workflow", "describe", "-w", job_id)
    assert described["workflowExecutionInfo"]["status"] == "WORKFLOW_EXECUTION_STATUS_CANCELED"
    assert job_id in [listed["id"] for listed in stack.json("list", "--state", "SUCCESS")]
    wait_until(lambda: stack.nothing_is_left_of(job_id))


def test_suspend_and_resume(stack: Stack) -> None:
    job_id = stack.sleeping(300)
    stack.reached(job_id, "RUNNING")
    assert stack.run("suspend", job_id).returncode == 0
    stack.reached(job_id, "SUSPENDED")
    assert stack.run("resume", job_id).returncode == 0
    stack.reached(job_id, "RUNNING")
    assert stack.run("suspend", job_id).returncode == 0
    stack.reached(job_id, "SUSPENDED")
    assert stack.run("cancel", job_id).returncode == 0
    stack.reached(job_id, "SUCCESS")
    wait_until(lambda: stack.nothing_is_left_of(job_id))


@pytest.mark.long
@pytest.mark.timeout(300)  # a hundred starts of Python are all that it does
def test_a_hundred_concurrent_commands_succeed(stack: Stack) -> None:
    job_id = stack.submit("exit-3.yaml")
    stack.reached(job_id, "SUCCESS")
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: stack.run("show", job_id, "--json"), range(100)))
    assert {entry.returncode for entry in done} == {0}
    assert {json.loads(entry.stdout)["id"] for entry in done} == {job_id}


def test_a_second_stack_in_the_folder_is_rejected(stack: Stack) -> None:
    done = stack.run("dev")
    assert done.returncode == 3
    assert "runs in" in done.stderr


def test_a_missing_job_is_a_clear_error(stack: Stack) -> None:
    done = stack.run("show", "no-such-job")
    assert (done.returncode, done.stderr) == (2, "There is no job no-such-job.\n")
