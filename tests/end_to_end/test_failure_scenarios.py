"""Go through the situations of UCloud's documentation, from the command line to processes."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.builders import product
from tests.end_to_end.keyboard import Keyboard
from tests.end_to_end.running_stack import COMMAND, Stack
from tests.waiting import wait_until

SHARED = """
drive: v1
id: shared
provider: local
owner: {user: bob}
acl: [{entity: {type: user, username: alice}, permissions: [READ]}]
"""


def job_file(stack: Stack, category: str = "cpu", **changes: Any) -> Path:
    path = stack.job_file("server", "1")
    document = json.loads(path.read_text()) | {"product": product(category)}
    path.write_text(json.dumps(document | changes))
    return path


def wallet(stack: Stack, user: str) -> dict[str, int]:
    (found,) = stack.json("wallet", "--user", user)
    return dict(found)


def held(stack: Stack, user: str) -> int:
    """Return reserved and spent credits: a charge moves credits from one to the other."""
    found = wallet(stack, user)
    return found["reserved"] + found["spent"]


def submitted(stack: Stack, file: Path, user: str = "alice") -> str:
    return str(stack.json("submit", str(file), "--user", user)["id"])


def ended(stack: Stack, job_id: str, user: str = "alice") -> dict[str, Any]:
    job = stack.reached(job_id, "SUCCESS", user)
    wait_until(lambda: stack.nothing_is_left_of(job_id))
    return job


def running(stack: Stack, job_id: str) -> None:
    stack.reached(job_id, "RUNNING", "alice")


def cancelled(stack: Stack, job_id: str) -> None:
    assert stack.run("cancel", job_id, "--user", "alice").returncode == 0
    ended(stack, job_id)


def test_an_interactive_terminal(stack: Stack) -> None:
    pair = {"name": "pair", "version": "1"}
    job_id = submitted(stack, job_file(stack, application=pair, replicas=2))
    running(stack, job_id)
    command = [COMMAND, "open", job_id, "--type", "shell", "--rank", "1", "--user", "alice"]
    command += ["--data-dir", str(stack.folder)]
    piped = subprocess.run(
        command,
        input="echo rank-$(cat /etc/ucloud/rank.txt)\nexit\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (piped.returncode, piped.stderr) == (0, "")
    assert "rank-1" in piped.stdout
    with Keyboard(command, columns=91, rows=33) as keyboard:
        keyboard.read_until("# ")
        keyboard.type("stty size; sh -c 'echo sta\"\"rted; sleep 250'\n")
        keyboard.read_until("33 91")
        keyboard.read_until("started")
        keyboard.text = ""
        keyboard.type("\x03")
        keyboard.read_until("# ")
        keyboard.resize(72, 20)
        keyboard.type("echo si''ze-$(stty size)-$UCLOUD_RANK\n")
        keyboard.read_until("size-20 72-1")
        keyboard.type("exit 7\n")
        assert keyboard.wait() == 7
    rejected = stack.run("open", job_id, "--rank", "2", "--user", "alice")
    assert (rejected.returncode, rejected.stderr) == (
        2,
        "There is no rank 2: the job's 2 replicas count from 0.\n",
    )
    rejected = stack.run("open", job_id, "--type", "vnc", "--user", "alice")
    assert rejected.returncode == 2
    assert rejected.stderr == "The application pair@1 has no interface of type VNC.\n"
    others = stack.run("open", job_id, "--user", "mallory")
    assert (others.returncode, others.stderr) == (2, f"There is no job {job_id}.\n")
    cancelled(stack, job_id)


def test_licensed_software(stack: Stack) -> None:
    file = job_file(stack, parameters={"license": {"type": "license_server", "id": "solver"}})
    jobs = [submitted(stack, file) for _ in range(2)]
    for job_id in jobs:
        wait_until(
            lambda job_id=job_id: (
                stack.output(job_id, "stdout-0.txt") == "license.example.com:27000/abc\n"
            )
        )
        cancelled(stack, job_id)
    assert stack.run("submit", str(file), "--user", "bob").returncode == 2


def test_losing_access(stack: Stack) -> None:
    catalog = stack.folder / "catalog" / "shared.yaml"
    catalog.write_text(SHARED)
    file = job_file(stack, resources=[{"type": "file", "path": "/shared/data", "readOnly": True}])

    def accepted() -> bool:
        # Until the worker has read the catalog again the drive is unknown; the provider has no such
        # drive at all.
        return (
            "refused: There is no drive 'shared'"
            in stack.run("submit", str(file), "--user", "alice").stderr
        )

    wait_until(accepted)
    file = job_file(
        stack, resources=[{"type": "file", "path": "/examples/speeches.txt", "readOnly": True}]
    )
    job_id = submitted(stack, file)
    running(stack, job_id)
    local = stack.folder / "catalog" / "local.yaml"
    local.write_text(local.read_text().replace("id: examples", "id: gone"))

    def checked() -> bool:
        stack.temporal("schedule", "trigger", "--schedule-id", "check-local")
        return bool(stack.json("show", job_id, "--user", "alice")["status"]["state"] != "RUNNING")

    wait_until(checked)
    job = ended(stack, job_id)
    assert "lost permissions" in job["updates"][-2]["status"]
    assert "/examples/speeches.txt" in job["updates"][-2]["status"]
    local.write_text(local.read_text().replace("id: gone", "id: examples"))

    def accepted_again() -> str | None:
        # Until the worker has read the catalog, the drive is missing for other tests too.
        done = stack.run("submit", str(file), "--user", "alice", "--json")
        return str(json.loads(done.stdout)["id"]) if done.returncode == 0 else None

    job_id = str(wait_until(accepted_again))
    cancelled(stack, job_id)


def test_credits(stack: Stack) -> None:
    file = job_file(stack, "paid", timeAllocation={"hours": 1, "minutes": 0, "seconds": 0})
    rejected = stack.run("submit", str(file), "--user", "alice")
    assert rejected.returncode == 2
    assert "has no wallet for paid@local" in rejected.stderr
    stack.json("wallet", "grant", "60", "paid@local", "--for-user", "alice")
    job_id = submitted(stack, file)
    assert held(stack, "alice") == 60
    running(stack, job_id)
    more = stack.run("extend", job_id, "--hours", "1", "--user", "alice")
    assert (more.returncode, more.stderr) == (
        2,
        "The wallet does not cover the 60 credits of that time.\n",
    )
    charges = [
        {"chargeId": "one", "units": 15, "periods": 1},
        {"chargeId": "two", "units": 100, "periods": 1},
    ]
    payload = json.dumps({"provider": "local", "charges": charges})
    answer = stack.temporal(
        "workflow", "update", "execute", "-w", job_id, "--name", "charge", "--input", payload
    )
    assert answer["result"] == {"insufficientFunds": [{"id": "two"}], "duplicateCharges": []}
    assert (
        "There are no more credits"
        in stack.json("show", job_id, "--user", "alice")["updates"][-1]["status"]
    )
    cancelled(stack, job_id)
    # The provider itself charges each minute that was begun, and at least the first.
    left = wallet(stack, "alice")
    assert left["spent"] >= 15 + 1
    assert (left["available"], left["reserved"]) == (60 - left["spent"], 0)
    amounts = [line["amount"] for line in stack.json("wallet", "ledger", "--user", "alice")]
    assert (amounts[0], amounts[-2:], sum(amounts)) == (left["available"], [60, 60], 3 * 60)


@pytest.mark.long  # the provider charges once a minute
@pytest.mark.timeout(180)
def test_out_of_credits(stack: Stack) -> None:
    stack.json("wallet", "grant", "60", "paid@local", "--for-user", "dave")
    file = job_file(stack, "paid", timeAllocation={"hours": 1, "minutes": 0, "seconds": 0})
    job_id = submitted(stack, file, "dave")

    def is_empty() -> bool:
        left = wallet(stack, "dave")["reserved"]
        charges = [{"chargeId": f"all-{left}", "units": left, "periods": 1}]
        payload = json.dumps({"provider": "local", "charges": charges})
        stack.temporal(
            "workflow", "update", "execute", "-w", job_id, "--name", "charge", "--input", payload
        )
        return wallet(stack, "dave")["reserved"] == 0

    wait_until(is_empty)  # the provider may take a credit between the question and the charge
    # The provider's own next charge finds an empty wallet, so it stops the job.
    job = stack.reached(job_id, "SUCCESS", "dave", 90)
    assert "Your job has been terminated (No more credits)." in [
        update.get("status") for update in job["updates"]
    ]
    wait_until(lambda: stack.nothing_is_left_of(job_id))
    left = wallet(stack, "dave")
    assert (left["available"], left["reserved"], left["spent"]) == (0, 0, 60)


def test_extending_and_ending_early(stack: Stack) -> None:
    stack.json("wallet", "grant", "240", "paid@local", "--for-user", "carol")
    file = job_file(stack, "paid", timeAllocation={"hours": 1, "minutes": 0, "seconds": 0})
    job_id = submitted(stack, file, "carol")
    wait_until(
        lambda: stack.json("show", job_id, "--user", "carol")["status"]["state"] == "RUNNING"
    )
    before = stack.json("show", job_id, "--user", "carol")["status"]["expiresAt"]
    assert stack.run("extend", job_id, "--minutes", "30", "--user", "carol").returncode == 0
    assert (
        stack.json("show", job_id, "--user", "carol")["status"]["expiresAt"] - before == 1_800_000
    )
    assert held(stack, "carol") == 90
    assert stack.run("cancel", job_id, "--user", "carol").returncode == 0
    ended(stack, job_id, "carol")
    left = wallet(stack, "carol")
    assert (left["available"], left["reserved"]) == (240 - left["spent"], 0)
    assert 1 <= left["spent"] < 90


def test_a_batch_from_one_file(stack: Stack) -> None:
    good = json.loads(job_file(stack).read_text())
    file = stack.folder / "batch.json"
    file.write_text(json.dumps([good, good | {"replicas": 2}]))
    rejected = stack.run("submit", str(file), "--user", "alice")
    assert (rejected.returncode, rejected.stderr) == (
        2,
        "[1] server@1 runs with 1 replica, not 2.\n",
    )
    file.write_text(json.dumps([good, good]))
    done = stack.run("submit", str(file), "--user", "alice", "--json")
    job_ids = [json.loads(line)["id"] for line in done.stdout.splitlines()]
    assert len(job_ids) == 2
    for job_id in job_ids:
        running(stack, job_id)
        cancelled(stack, job_id)


def test_a_job_missing_from_a_restored_backup_is_stopped(stack: Stack) -> None:
    job_id = submitted(stack, job_file(stack))
    running(stack, job_id)
    wait_until(lambda: stack.processes_of(job_id))
    stack.temporal("workflow", "terminate", "-w", job_id)
    with (
        contextlib.closing(sqlite3.connect(stack.folder / "store.sqlite", timeout=10)) as store,
        store,
    ):
        store.execute("DELETE FROM bindings WHERE job_id = ?", [job_id])
        store.execute("DELETE FROM reservations WHERE job_id = ?", [job_id])
        assert store.execute("DELETE FROM live_jobs WHERE id = ?", [job_id]).rowcount == 1
    other = submitted(stack, job_file(stack))
    running(stack, other)
    is_running = f"WorkflowId = '{other}' AND JobState = 'RUNNING'"
    wait_until(lambda: stack.temporal("workflow", "list", "--query", is_running))
    stack.temporal("schedule", "trigger", "--schedule-id", "check-local")
    wait_until(lambda: stack.nothing_is_left_of(job_id))
    assert stack.processes_of(other)
    cancelled(stack, other)
