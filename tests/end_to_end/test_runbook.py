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
from pathlib import Path

import pytest

from tests.end_to_end.running_stack import ROOT, Stack, eventually
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

    def __init__(self, folder: Path) -> None:
        self.stack = Stack(folder)
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
        assert (
            self.stack.run(
                "submit", str(self.stack.job_file("no-such-application", "1"))
            ).returncode
            == 2
        )
        query = "WorkflowType = 'Job' AND ExecutionStatus = 'Failed'"
        (refused,) = eventually(
            lambda: self.stack.temporal("workflow", "list", "--query", query)
        ) or [{}]
        self.jobs["REFUSED"] = refused["execution"]["workflowId"]

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
        self.stack.temporal(*command, "--input", '"This is no job."')
        return job_id

    def _running(self, user: str | None = None) -> str:
        file = self.stack.job_file("sleep", "1.0", seconds={"type": "integer", "value": 600})
        document = file.read_text().replace(
            '"parameters"', '"allowDuplicateJob": true, "parameters"'
        )
        file.write_text(document)
        options = ["--user", user] if user else []
        job_id = str(self.stack.json("submit", str(file), *options)["id"])
        self.stack.reached(job_id, "RUNNING", user)
        return job_id

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
def runbook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runbook]:
    prepared = Runbook(tmp_path_factory.mktemp("runbook"))
    yield prepared
    prepared.stack.stop()


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
        eventually(lambda: wanted in runbook.run(block.script))
    else:
        assert wanted not in runbook.run(block.script)
