"""The whole stack as users start it: real processes, the command line, and what happens when any of them dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

ROOT = Path(__file__).parent.parent.parent
COMMAND = str(Path(sys.executable).parent / "ucloud-orchestrator")
TEMPORAL = str(Path(sys.executable).parent / "temporal")
MAXIMUM_EVENTS = 25

APPEND = """
application: v1
title: Append
name: append
version: "1"
authors: [UCloud]
description: Adds a line to a file, and then takes a while.
tool: {name: system, version: "1"}
applicationType: BATCH
invocation: [sh, -c, 'echo "$1" >> "$2"; sleep 2', append, {type: var, vars: line}, {type: var, vars: file}]
parameters:
  line: {type: text}
  file: {type: input_file}
"""
"""Shows how often a job was started."""

Value = TypeVar("Value")


def eventually(condition: Callable[[], Value], seconds: float = 40.0) -> Value:
    """Wait until the condition gives something true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)
    return value


class Stack:
    """A `dev` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "examples/catalog", folder / "catalog")
        shutil.copytree(ROOT / "examples/files", folder / "files")
        (folder / "catalog" / "append.yaml").write_text(APPEND)
        self.lines = folder / "files" / "lines.txt"
        self.lines.touch()
        self.start()

    def start(self) -> None:
        command = [
            COMMAND,
            "dev",
            "--json",
            "--data-dir",
            str(self.folder),
            "--catalog",
            str(self.folder / "catalog"),
        ]
        command += ["--temporal-port", "0", "--ui-port", "0", "--provider-port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        with self.process.stdout as out:
            self.ready = json.loads(out.readline())

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(60) == 0

    def pid(self, part: str) -> int:
        return int(json.loads((self.folder / "stack.json").read_text())["pids"][part])

    def kill(self, part: str) -> None:
        """Kill a part without a warning, and wait until `dev` has started it again."""
        before = self.pid(part)
        os.kill(before, signal.SIGKILL)
        eventually(lambda: self.pid(part) != before)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments, "--data-dir", str(self.folder)],
            capture_output=True,
            text=True,
            timeout=80,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def submit(self, name: str) -> str:
        return str(self.json("submit", str(ROOT / "examples" / "jobs" / name))["id"])

    def sleeping(self, seconds: int) -> str:
        file = self.job_file("sleep", "1.0", seconds={"type": "integer", "value": seconds})
        return str(self.json("submit", str(file))["id"])

    def appending(self, line: str) -> Path:
        """A job file whose job adds that line to the lines, each time that it is started."""
        lines = {"type": "file", "path": "/examples/lines.txt", "readOnly": False}
        return self.job_file("append", "1", line={"type": "text", "value": line}, file=lines)

    def times_started(self, line: str) -> int:
        return self.lines.read_text().splitlines().count(line)

    def job_file(self, application: str, version: str, **parameters: Any) -> Path:
        file = self.folder / f"{application}-{uuid.uuid4()}.json"
        document = {
            "application": {"name": application, "version": version},
            "product": {"id": "cpu-1", "category": "cpu", "provider": "local"},
            "parameters": parameters,
        }
        file.write_text(json.dumps(document))
        return file

    def state(self, job_id: str) -> str:
        done = self.run("show", job_id, "--json")
        return str(json.loads(done.stdout)["status"]["state"]) if done.returncode == 0 else ""

    def reached(self, job_id: str, state: str) -> dict[str, Any]:
        eventually(lambda: self.state(job_id) == state)
        job: dict[str, Any] = self.json("show", job_id)
        return job

    def output(self, job_id: str, name: str) -> str:
        return (self.folder / "provider/drives/home/Jobs" / job_id / name).read_text()

    def temporal(self, *arguments: str) -> Any:
        command = [TEMPORAL, *arguments, "--address", self.ready["temporal"], "--output", "json"]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout or "null")

    def processes_of(self, job_id: str) -> list[int]:
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if any(job_id in word for word in process.info["cmdline"] or ()):
                found.append(process.pid)
        return found

    def nothing_is_left_of(self, job_id: str) -> bool:
        return not self.processes_of(job_id) and not (self.folder / "provider/jobs" / job_id).exists()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
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
        assert lines[1:] == [f"node-{other}.txt:127.0.0.1" for other in range(3)]


def test_an_exit_code_is_a_success_that_says_it(stack: Stack) -> None:
    done = stack.run("submit", str(ROOT / "examples/jobs/exit-3.yaml"), "--follow")
    assert done.returncode == 0
    assert "exit code 3" in done.stdout


def test_an_operator_cancels_from_outside(stack: Stack) -> None:
    job_id = stack.sleeping(300)
    stack.reached(job_id, "RUNNING")
    eventually(lambda: len(stack.processes_of(job_id)) > 1)
    subprocess.run([TEMPORAL, "workflow", "cancel", "-w", job_id, "--address", stack.ready["temporal"]], check=True)
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
def test_a_killed_process_loses_no_running_job(stack: Stack, part: str) -> None:
    job_id = stack.sleeping(4)
    stack.reached(job_id, "RUNNING")
    stack.kill(part)
    job = stack.reached(job_id, "SUCCESS")
    assert "exit code 0" in job["updates"][-1]["status"]
    assert stack.output(job_id, "stdout-0.txt").splitlines() == ["I sleep for 4 seconds.", "I am awake."]
    eventually(lambda: stack.nothing_is_left_of(job_id))


@pytest.mark.parametrize("part", ["worker", "provider", "temporal"])
def test_a_killed_process_loses_no_cancel(stack: Stack, part: str) -> None:
    job_id = stack.sleeping(300)
    stack.reached(job_id, "RUNNING")
    stack.run("cancel", job_id)
    stack.kill(part)
    stack.reached(job_id, "SUCCESS")
    eventually(lambda: stack.nothing_is_left_of(job_id))


@pytest.mark.parametrize("parts", [("provider", "worker"), ("temporal",)], ids="-".join)
def test_a_kill_while_a_job_is_submitted_starts_it_once(stack: Stack, parts: tuple[str, ...]) -> None:
    line = "-".join(parts)
    psutil.Process(stack.pid("provider")).suspend()  # it takes connections, but answers nothing
    command = [COMMAND, "submit", str(stack.appending(line)), "--json", "--data-dir", str(stack.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as submitting:
        query = "WorkflowType='Job' AND ExecutionStatus='Running'"
        eventually(lambda: stack.temporal("workflow", "list", "--query", query))
        for part in parts:
            stack.kill(part)
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
    stack.stop()
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
