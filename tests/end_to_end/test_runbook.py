"""Every command of `docs/operators/README.md` and `docs/operators/upgrades.md`, run as it stands
there.

A comment before a block says what it must show (`shows:`), must not (`shows-not:`), or what a job
is in afterwards (`then: $JOB is STATE`).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.builders import integer
from tests.end_to_end.running_stack import ROOT, Stack
from tests.waiting import wait_until
from ucloud_orchestrator.temporal.names import TASK_QUEUE, new_job_id

BLOCK = re.compile(
    r"<!-- (?P<rule>shows|shows-not|then):(?P<what>.*?)-->\n```sh\n(?P<script>.*?)```", re.DOTALL
)
PAGE = "".join(
    (ROOT / "docs" / "operators" / name).read_text() for name in ("README.md", "upgrades.md")
)


@dataclass(frozen=True)
class Block:
    """One block of the page and its rule."""

    rule: str
    what: str
    script: str

    def __str__(self) -> str:
        return self.script.splitlines()[0][:60]


BLOCKS = [
    Block(found["rule"], found["what"].strip(), found["script"]) for found in BLOCK.finditer(PAGE)
]


class Runbook:
    """A stack with the jobs that the page speaks of."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._began = datetime.now(UTC).isoformat()
        self.jobs = {
            "JOB": self._running(),
            "SPARE": self._running(),
            "DRAINED": self._running("leaver"),
        }
        self.jobs["STUCK"] = self._stuck()
        failed = self._running()
        message = (
            '{"provider": "local", "updates": [{"state": "FAILURE", "status": "The node broke."}]}'
        )
        self.stack.temporal(
            "workflow", "signal", "-w", failed, "--name", "update", "--input", message
        )
        self.stack.reached(failed, "FAILURE")
        self.jobs["FAILED"] = failed
        self.jobs["REFUSED"] = self._rejected()

    def _stuck(self) -> str:
        """A job whose workflow task fails, which only a foreign program can start."""
        job_id = new_job_id()
        command = [
            "workflow",
            "start",
            "--type",
            "Job",
            "--workflow-id",
            job_id,
            "--task-queue",
            TASK_QUEUE,
        ]
        self.stack.temporal(*command, "--input", '"This is not a job."')
        return job_id

    def _rejected(self) -> str:
        asked = self.stack.job_file("no-such-application", "1")
        assert self.stack.run("submit", str(asked)).returncode == 2
        query = "WorkflowType = 'Job' AND ExecutionStatus = 'Failed'"

        def newest() -> str | None:
            found = self.stack.temporal("workflow", "list", "--query", query)
            started = [entry for entry in found if entry["startTime"] > self._began]
            return started[0]["execution"]["workflowId"] if started else None

        job_id = wait_until(newest)
        assert job_id is not None
        return job_id

    def _running(self, user: str | None = None) -> str:
        path = self.stack.job_file("sleep", "1.0", seconds=integer(600))
        options = ["--user", user] if user else []
        job_id = str(self.stack.json("submit", str(path), *options)["id"])
        self.stack.reached(job_id, "RUNNING", user)
        return job_id

    def close(self) -> None:
        """Leave no live job to the other tests."""
        self.stack.temporal("workflow", "terminate", "-w", self.jobs["STUCK"])
        assert self.stack.run("cancel", self.jobs["JOB"]).returncode == 0
        self.stack.reached(self.jobs["JOB"], "SUCCESS")

    def run(self, script: str) -> str:
        owner = self.stack.json("show", self.jobs["JOB"])["owner"]["createdBy"]
        environment = {
            **os.environ,
            **self.jobs,
            "OWNER": owner,
            "LEAVER": "leaver",
            "NATIVE_ID": "none",
            "FINAL": "2024-01-01T00:00:00Z",
            "TEMPORAL_ADDRESS": self.stack.ready["temporal"],
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def filled_in(self, text: str) -> str:
        return re.sub(r"\$([A-Z]+)", lambda found: self.jobs[found[1]], text)


@pytest.fixture(scope="module")
def runbook(stack: Stack) -> Iterator[Runbook]:
    prepared = Runbook(stack)
    yield prepared
    prepared.close()


def test_every_command_of_the_page_has_a_rule() -> None:
    assert len(BLOCKS) == PAGE.count("```sh") > 10


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_command_of_the_runbook(runbook: Runbook, block: Block) -> None:
    if block.rule == "then":
        variable, state = block.what.split(" is ")
        user = "leaver" if variable == "$DRAINED" else None
        runbook.run(block.script)
        runbook.stack.reached(runbook.jobs[variable.removeprefix("$")], state, user)
        return
    wanted = runbook.filled_in(block.what)
    if block.rule == "shows":
        wait_until(lambda: wanted in runbook.run(block.script))
    else:
        assert wanted not in runbook.run(block.script)
