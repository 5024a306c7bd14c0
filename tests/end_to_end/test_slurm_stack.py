"""Jobs in a real Slurm cluster through the whole stack, by the command line: what users do, and what they see when
something is killed.
"""

from __future__ import annotations

import getpass
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.end_to_end.keyboard import Keyboard
from tests.end_to_end.running_stack import COMMAND, Stack, eventually
from tests.provider.slurm_served import cluster
from tests.provider.test_slurm import MEETING
from tests.slurm.cluster import Cluster

__all__ = ["cluster"]
pytestmark = [pytest.mark.timeout(240)]

PRODUCT = {"id": "node-1", "category": "slurm", "provider": "local"}
CATALOG: list[dict[str, Any]] = [
    {
        "product": "v1",
        "name": PRODUCT["id"],
        "description": "One core of a node of the cluster",
        "category": {"name": PRODUCT["category"], "provider": "local"},
        "pricePerUnit": 1,
        "unitOfPrice": "CREDITS_PER_MINUTE",
        "cpu": 1,
        "memoryInGigs": 1,
        "support": {
            "native": {"enabled": True, "logs": True, "terminal": True, "timeExtension": True, "suspension": True}
        },
    },
    *(
        {
            "application": "v1",
            "title": name,
            "name": name,
            "version": "1",
            "authors": ["UCloud"],
            "description": "Runs in Slurm.",
            "tool": {"name": "system", "version": "1"},
            "applicationType": "BATCH",
            "allowMultiNode": True,
            "invocation": invocation,
            "parameters": parameters,
        }
        for name, invocation, parameters in (
            ("script", ["sh", "-c", {"type": "var", "vars": "script"}], {"script": {"type": "text"}}),
            ("meeting", ["python3", "-c", MEETING], {}),
        )
    ),
]
GRANTED = 100_000
TICKING = "number=0; while true; do number=$((number+1)); echo tick $number; sleep 0.1; done"


@pytest.fixture(scope="module")
def stack(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose provider runs one product's jobs in the cluster."""
    entry = {"product": PRODUCT["id"], "category": PRODUCT["category"], "executor": "slurm"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UCLOUD_PROVIDER_EXECUTORS", json.dumps([entry | {"slurm": {"partition": "main"}}]))
        patch.setenv("UCLOUD_PROVIDER_SLURM_INTERVAL", "0.5")
        running = Stack(tmp_path_factory.mktemp("stack"), f"\n---\n{yaml.safe_dump_all(CATALOG)}")
        try:
            granting = ["wallet", "grant", str(GRANTED), f"{PRODUCT['category']}@local"]
            running.json(*granting, "--for-user", getpass.getuser())
            yield running
        finally:
            running.stop()


@pytest.fixture
def whole(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, whole again after a test that kills parts of it."""
    try:
        yield cluster
    finally:
        cluster.repair()


def submitted(stack: Stack, script: str | None, replicas: int = 1) -> str:
    file = stack.folder / "job.json"
    name, parameters = ("meeting", {}) if script is None else ("script", {"script": {"type": "text", "value": script}})
    specification = {"product": PRODUCT, "replicas": replicas, "parameters": parameters, "allowDuplicateJob": True}
    file.write_text(json.dumps(specification | {"application": {"name": name, "version": "1"}}))
    return str(stack.json("submit", str(file))["id"])


def running(stack: Stack, script: str, replicas: int = 1) -> str:
    job_id = submitted(stack, script, replicas)
    stack.reached(job_id, "RUNNING")
    return job_id


def ended(stack: Stack, job_id: str, state: str = "SUCCESS") -> str:
    """What its user is told in the end."""
    job = stack.reached(job_id, state, seconds=80)
    eventually(lambda: stack.nothing_is_left_of(job_id))
    return str(job["updates"][-1]["status"])


def cancelled(stack: Stack, job_id: str) -> None:
    assert stack.run("cancel", job_id).returncode == 0
    assert ended(stack, job_id) == "Your job has been cancelled!"


def in_slurm(cluster: Cluster, job_id: str, column: str) -> str:
    """A column of `squeue` for a job."""
    return cluster.run("squeue", f"--name=ucloud-{job_id}", "--states=all", "-h", "-o", column).strip()


def wallet(stack: Stack) -> dict[str, int]:
    (found,) = stack.json("wallet")
    return dict(found)


def test_a_batch_job_with_its_exit_code_and_output(stack: Stack) -> None:
    job_id = submitted(stack, "echo out; echo wrong >&2; echo kept > result.txt; exit 3")
    assert ended(stack, job_id) == "The job has finished with exit code 3."
    logs = stack.run("logs", job_id)
    assert (logs.stdout, logs.stderr) == ("out\n", "wrong\n")
    assert stack.output(job_id, "result.txt") == "kept\n"


def test_three_replicas_on_three_nodes_meet_and_are_paid_for(stack: Stack, cluster: Cluster) -> None:
    before = wallet(stack)["spent"]
    job_id = submitted(stack, None, replicas=3)
    assert ended(stack, job_id) == "The job has finished with exit codes rank 0: 0, rank 1: 0, rank 2: 0."
    assert stack.run("logs", job_id, "--rank", "0").stdout == "[0] ['hello from 1', 'hello from 2']\n"
    assert in_slurm(cluster, job_id, "%D") == "3"
    assert wallet(stack)["spent"] - before == 3  # the minute that was begun, for each node


def test_logs_are_followed_by_rank(stack: Stack) -> None:
    job_id = submitted(stack, 'for i in 1 2 3; do echo "$UCLOUD_RANK says $i"; sleep 0.3; done; echo no >&2', 2)
    done = stack.run("logs", job_id, "--follow")
    assert sorted(done.stdout.splitlines()) == [f"[{rank}] {rank} says {i}" for rank in (0, 1) for i in (1, 2, 3)]
    assert sorted(done.stderr.splitlines()) == ["[0] no", "[1] no"]
    assert stack.run("logs", job_id, "--rank", "1", "--stderr").stderr == "[1] no\n"
    assert ended(stack, job_id).startswith("The job has finished")


def test_an_extension_is_one_in_slurm_too(stack: Stack, cluster: Cluster) -> None:
    job_id = running(stack, "sleep 300")
    before = stack.json("show", job_id)["status"]["expiresAt"]
    assert in_slurm(cluster, job_id, "%l") == "1:10:00"  # what the tool says, and the margin
    extended = stack.run("extend", job_id, "--hours", "2")
    assert extended.returncode == 0, extended.stderr
    assert stack.json("show", job_id)["status"]["expiresAt"] - before == 2 * 3_600_000
    assert in_slurm(cluster, job_id, "%l") == "3:10:00"
    cancelled(stack, job_id)


def test_suspension_and_back(stack: Stack, cluster: Cluster) -> None:
    job_id = running(stack, TICKING)
    assert stack.run("suspend", job_id).returncode == 0
    stack.reached(job_id, "SUSPENDED")
    assert in_slurm(cluster, job_id, "%T") == "SUSPENDED"
    held = stack.output(job_id, "stdout-0.txt")
    assert stack.run("resume", job_id).returncode == 0
    stack.reached(job_id, "RUNNING")
    assert in_slurm(cluster, job_id, "%T") == "RUNNING"
    # No tick is missing, and none came twice: it is the same program.
    eventually(lambda: len(stack.output(job_id, "stdout-0.txt")) > len(held) + 20)
    lines = stack.output(job_id, "stdout-0.txt").splitlines()
    assert lines == [f"tick {number}" for number in range(1, len(lines) + 1)]
    cancelled(stack, job_id)


def test_a_terminal_on_the_node_of_a_rank(stack: Stack) -> None:
    job_id = running(stack, "sleep 300", replicas=2)
    command = [COMMAND, "open", job_id, "--type", "shell", "--rank", "1", "--data-dir", str(stack.folder)]
    with Keyboard(command, columns=91, rows=33) as keyboard:
        keyboard.read_until("# ")
        keyboard.type("stty size; echo ra''nk-$(cat /etc/ucloud/rank.txt)-$UCLOUD_RANK in $PWD\n")
        keyboard.read_until("33 91")
        keyboard.read_until("rank-1-1 in /work")
        keyboard.type("sh -c 'echo sta\"\"rted; sleep 250'\n")
        keyboard.read_until("started")
        keyboard.text = ""
        keyboard.type("\x03")
        keyboard.read_until("# ")
        keyboard.type("exit 0\n")
        assert keyboard.wait() == 0
    refused = stack.run("open", job_id, "--type", "shell", "--rank", "2")
    assert (refused.returncode, refused.stderr) == (2, "There is no rank 2: the job's 2 replicas count from 0.\n")
    cancelled(stack, job_id)


def test_a_cancel_leaves_no_process_and_holds_nothing(stack: Stack, cluster: Cluster) -> None:
    job_id = running(stack, "trap '' TERM; sleep 300 & sleep 300", replicas=2)
    assert wallet(stack)["reserved"] >= 2 * 60 - 2
    eventually(lambda: len(stack.processes_of(job_id)) > 1)
    cancelled(stack, job_id)
    assert stack.processes_of(job_id) == []
    assert in_slurm(cluster, job_id, "%T") in {"CANCELLED", "FAILED", "COMPLETING", ""}
    left = wallet(stack)
    assert (left["reserved"], left["available"]) == (0, GRANTED - left["spent"])


def test_a_provider_killed_under_a_running_job_tells_its_true_end(stack: Stack) -> None:
    go = stack.folder / "provider/jobs"
    job_id = running(stack, "echo begun; while [ ! -e go ]; do sleep 0.1; done; echo done; exit 7")
    stack.kill("provider")
    (go / job_id / "work" / "go").touch()
    assert ended(stack, job_id) == "The job has finished with exit code 7."
    assert stack.output(job_id, "stdout-0.txt") == "begun\ndone\n"


def test_slurmctld_killed_under_a_running_job_changes_nothing(stack: Stack, whole: Cluster) -> None:
    job_id = running(stack, "echo begun; while [ ! -e go ]; do sleep 0.1; done; exit 5")
    whole.kill("slurmctld")
    (stack.folder / "provider/jobs" / job_id / "work" / "go").touch()
    eventually(lambda: (stack.folder / "provider/jobs" / job_id / "replica-0/exit-code").exists())
    assert stack.json("show", job_id)["status"]["state"] == "RUNNING"  # Slurm has not said that it is over
    whole.start_controller()
    assert ended(stack, job_id) == "The job has finished with exit code 5."
    assert stack.output(job_id, "stdout-0.txt") == "begun\n"


def test_slurmd_killed_under_a_running_job_is_a_failure_of_the_node(stack: Stack, whole: Cluster) -> None:
    job_id = running(stack, "echo begun; sleep 300")
    whole.kill(in_slurm(whole, job_id, "%N"))
    job = stack.reached(job_id, "FAILURE", seconds=80)
    assert str(job["updates"][-1]["status"]).startswith("A node of the job failed.")
    followed = subprocess.run(
        [COMMAND, "follow", job_id, "--data-dir", str(stack.folder)], capture_output=True, text=True, check=False
    )
    assert followed.returncode == 1
    assert wallet(stack)["reserved"] == 0
    whole.repair()
    eventually(lambda: not stack.processes_of(job_id))  # the node, back again, ends what it still ran
