"""The whole stack as users start it: real processes, the command line, and what happens when any of
them dies.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import psutil
import pytest

from tests.end_to_end.running_stack import COMMAND, ROOT, TEMPORAL, Stack, eventually

MAXIMUM_EVENTS = 25


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UCLOUD_STOP_TIMEOUT", "2")
        running = Stack(tmp_path_factory.mktemp("stack"))
        yield running
        running.stop()


def test_a_job_from_the_command_line_to_its_files(stack: Stack) -> None:
    job_id = stack.submit("word-count.yaml")
    job = stack.reached(job_id, "SUCCESS")
    assert job["output"]["outputFolder"] == f"/home/Jobs/{job_id}"
    assert stack.output(job_id, "stdout-0.txt").strip() == "402"
    assert len(stack.output(job_id, "words.txt").splitlines()) == 5
    assert [update["state"] for update in job["updates"]] == ["IN_QUEUE", "RUNNING", "SUCCESS"]
    assert job_id in [listed["id"] for listed in stack.json("list")]
    eventually(lambda: stack.nothing_is_left_of(job_id))


def test_a_whole_job_costs_at_most_25_events(stack: Stack) -> None:
    job_id = stack.sleeping(2)
    job = stack.reached(job_id, "SUCCESS")
    assert "RUNNING" in [update.get("state") for update in job["updates"]]
    history = stack.temporal("workflow", "show", "-w", job_id)
    assert len(history["events"]) <= MAXIMUM_EVENTS


def test_three_replicas_each_know_who_they_are(stack: Stack) -> None:
    job_id = stack.submit("replicas.yaml")
    stack.reached(job_id, "SUCCESS")
    for rank in range(3):
        lines = stack.output(job_id, f"stdout-{rank}.txt").splitlines()
        assert lines[0] == f"I am rank {rank} of 3 of job {job_id}."
        assert [line.partition(":")[0] for line in lines[1:]] == [
            f"node-{other}.txt" for other in range(3)
        ]
        assert all(ip_address(line.partition(":")[2]) for line in lines[1:])


def test_an_exit_code_is_a_success_that_says_it(stack: Stack) -> None:
    done = stack.run("submit", str(ROOT / "examples/jobs/exit-3.yaml"), "--follow")
    assert done.returncode == 0
    assert "exit code 3" in done.stdout


def test_an_operator_cancels_from_outside(stack: Stack) -> None:
    job_id = stack.sleeping(300)
    stack.reached(job_id, "RUNNING")
    eventually(lambda: len(stack.processes_of(job_id)) > 1)
    subprocess.run(
        [TEMPORAL, "workflow", "cancel", "-w", job_id, "--address", stack.ready["temporal"]],
        check=True,
    )
    began = time.monotonic()
    eventually(lambda: not stack.processes_of(job_id))
    assert time.monotonic() - began < 5
    job = stack.reached(job_id, "SUCCESS")
    assert [update["state"] for update in job["updates"]][-2:] == ["CANCELING", "SUCCESS"]
    described = stack.temporal("workflow", "describe", "-w", job_id)
    assert described["workflowExecutionInfo"]["status"] == "WORKFLOW_EXECUTION_STATUS_CANCELED"
    assert job_id in [listed["id"] for listed in stack.json("list", "--state", "SUCCESS")]
    eventually(lambda: stack.nothing_is_left_of(job_id))


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
    eventually(lambda: stack.nothing_is_left_of(job_id))


def test_an_extension_moves_the_deadline(stack: Stack) -> None:
    job_id = stack.sleeping(300)
    before = stack.reached(job_id, "RUNNING")
    assert stack.run("extend", job_id, "--hours", "1", "--minutes", "30").returncode == 0
    after = stack.json("show", job_id)
    assert after["status"]["expiresAt"] - before["status"]["expiresAt"] == 5_400_000
    stack.run("cancel", job_id)
    stack.reached(job_id, "SUCCESS")


@pytest.mark.parametrize("part", ["worker", "provider", "temporal"])
def test_a_killed_process_loses_no_job_and_no_cancel(stack: Stack, part: str) -> None:
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
        eventually(lambda job_id=job_id: stack.nothing_is_left_of(job_id))


@pytest.mark.parametrize(
    ("parts", "how"),
    [
        (["provider", "worker"], signal.SIGKILL),
        (["temporal"], signal.SIGKILL),
        (["worker"], signal.SIGTERM),
    ],
    ids=["provider and worker killed", "temporal killed", "worker stopped"],
)
def test_a_kill_while_a_job_is_submitted_starts_it_once(
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
        eventually(lambda: stack.temporal("workflow", "list", "--query", query))
        for part in parts:
            stack.kill(part, how)
        psutil.Process(stack.pid("provider")).resume()
        out, _ = submitting.communicate(timeout=80)
    job_id = json.loads(out)["id"]
    stack.reached(job_id, "SUCCESS")
    assert stack.times_started(line) == 1
    eventually(lambda: stack.nothing_is_left_of(job_id))


def test_a_provider_killed_after_a_job_has_ended_reports_its_end(stack: Stack) -> None:
    job_id = str(stack.json("submit", str(stack.appending("after")))["id"])
    eventually(lambda: stack.processes_of(job_id))
    psutil.Process(stack.pid("provider")).suspend()  # the end comes while it cannot see it
    eventually(lambda: not stack.processes_of(job_id))
    stack.kill("provider")
    job = stack.reached(job_id, "SUCCESS")
    assert "exit code 0" in job["updates"][-1]["status"]
    assert stack.times_started("after") == 1
    eventually(lambda: stack.nothing_is_left_of(job_id))


@pytest.mark.long
@pytest.mark.timeout(300)  # a hundred starts of Python are all that it does
def test_a_hundred_short_processes_end_well(stack: Stack) -> None:
    job_id = stack.submit("exit-3.yaml")
    stack.reached(job_id, "SUCCESS")
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: stack.run("show", job_id, "--json"), range(100)))
    assert {entry.returncode for entry in done} == {0}
    assert {json.loads(entry.stdout)["id"] for entry in done} == {job_id}


def test_the_stack_goes_on_where_it_was(stack: Stack) -> None:
    job_id = stack.sleeping(6)
    stack.reached(job_id, "RUNNING")
    parts = [stack.pid(part) for part in ("provider", "worker", "temporal")]
    stack.process.send_signal(signal.SIGINT)
    eventually(lambda: not psutil.pid_exists(parts[0]))
    stack.process.send_signal(signal.SIGINT)  # whoever is impatient breaks nothing off
    assert stack.process.wait(60) == 0
    assert not any(map(psutil.pid_exists, parts))
    stack.start()
    job = stack.reached(job_id, "SUCCESS")
    assert "exit code 0" in job["updates"][-1]["status"]


def test_a_second_stack_in_the_folder_is_refused(stack: Stack) -> None:
    done = stack.run("dev")
    assert done.returncode == 3
    assert "runs in" in done.stderr


def test_what_is_not_there(stack: Stack) -> None:
    done = stack.run("show", "no-such-job")
    assert (done.returncode, done.stderr) == (2, "There is no job no-such-job.\n")
