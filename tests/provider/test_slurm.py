"""The provider on a real Slurm cluster: what jobs do there, and what is reported of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.builders import shell_job
from tests.provider.provider_process import Served
from tests.provider.slurm_provider import cluster, slurm
from tests.provider.test_secrets import SECRET, scan, with_secret
from tests.provider.test_shells import terminal
from tests.slurm.cluster import Cluster
from tests.waiting import eventually
from ucloud_orchestrator.models import Job, JobState
from ucloud_orchestrator.provider.executors.slurm import scripts
from ucloud_orchestrator.provider.executors.slurm.executor import SlurmExecutor
from ucloud_orchestrator.provider.jobs.database import JobDatabase
from ucloud_orchestrator.provider.jobs.reconciler import Reconciler

__all__ = ["cluster", "slurm"]
pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]


def texts(served: Served, job: dict[str, Any]) -> str:
    return " / ".join(update.status or "" for update in served.reports.updates.get(job["id"], []))


def states(served: Served, job: dict[str, Any]) -> list[JobState]:
    return [update.state for update in served.reports.updates.get(job["id"], []) if update.state]


async def running(served: Served, job: dict[str, Any]) -> None:
    """Create the job, and wait for RUNNING in the answer or in a report."""
    answer = (await served.call("", job)).json()["responses"][0]
    if not answer.get("updates"):
        await eventually(lambda: JobState.RUNNING in states(served, job), 40)


async def ended(served: Served, job: dict[str, Any]) -> tuple[JobState | None, str]:
    update = await eventually(lambda: served.reports.ended(job["id"]), 60)
    assert update is not None
    return update.state, update.status or ""


async def session_in(served: Served, job: dict[str, Any], rank: int = 0) -> dict[str, Any]:
    """A session, as soon as the rank can be entered."""

    async def session() -> dict[str, Any] | None:
        answer = await served.call(
            "interactiveSession", {"job": job, "rank": rank, "sessionType": "SHELL"}
        )
        return dict(answer.json()["responses"][0]) if answer.status_code == 200 else None

    found = await eventually(session, 40)
    assert found is not None
    return found


def names(cluster: Cluster, job: dict[str, Any]) -> list[str]:
    return [
        line
        for line in cluster.run("squeue", "--states=all", "-h", "-o", "%j").split()
        if job["id"] in line
    ]


async def test_a_batch_job_ends_with_its_exit_code(slurm: Served) -> None:
    job = shell_job("echo out; echo err >&2; echo kept > result.txt; exit 3")
    await slurm.call("", job)
    assert await ended(slurm, job) == (JobState.SUCCESS, "The job has finished with exit code 3.")
    assert (slurm.output(job, "stdout-0.txt"), slurm.output(job, "stderr-0.txt")) == (
        "out\n",
        "err\n",
    )
    assert slurm.output(job, "result.txt") == "kept\n"
    psij = slurm.folder / "provider" / "psij"
    assert stat.S_IMODE(psij.stat().st_mode) == 0o700
    assert os.listdir(psij / "slurm") == []
    await eventually(lambda: not (slurm.folder / "provider" / "jobs" / job["id"]).exists())


async def test_a_replica_that_fails_ends_the_job_and_is_named(slurm: Served) -> None:
    job = shell_job('[ "$(cat /etc/ucloud/rank.txt)" = 1 ] && exit 3; sleep 300', replicas=3)
    await slurm.call("", job)
    state, text = await ended(slurm, job)
    assert state is JobState.SUCCESS
    assert "rank 1: 3" in text
    assert "Rank 1 ended the job." in text
    await eventually(lambda: not slurm.processes_of(job))


async def test_ten_creates_start_it_once(slurm: Served, cluster: Cluster) -> None:
    job = shell_job("echo once")
    await asyncio.gather(*(slurm.call("", job) for _ in range(10)))
    await ended(slurm, job)
    assert slurm.output(job, "stdout-0.txt") == "once\n"
    assert len(names(cluster, job)) == 1


async def test_a_cancel_leaves_no_process(slurm: Served) -> None:
    job = shell_job("trap '' TERM; sleep 300 & sleep 300", replicas=2)
    await running(slurm, job)
    await eventually(lambda: len(slurm.processes_of(job)) > 1)
    await slurm.call("terminate", job)
    assert await ended(slurm, job) == (JobState.SUCCESS, "Your job has been cancelled!")
    await eventually(lambda: not slurm.processes_of(job))


async def test_a_program_is_asked_to_end_before_it_is_killed(slurm: Served) -> None:
    job = shell_job("trap 'echo asked; exit 0' TERM; echo ready; while true; do sleep 0.1; done")
    await running(slurm, job)
    await eventually(lambda: "ready" in slurm.output(job, "stdout-0.txt"))
    await slurm.call("terminate", job)
    await ended(slurm, job)
    assert "asked" in slurm.output(job, "stdout-0.txt")


async def test_an_extension_is_an_extension_in_slurm(slurm: Served, cluster: Cluster) -> None:
    job = shell_job("sleep 300")
    await running(slurm, job)
    for _ in range(2):
        answer = await slurm.call("extend", {"job": job, "requestedTime": {"hours": 2}})
        assert answer.status_code == 200, answer.text
    limit = cluster.run("squeue", f"--name=ucloud-{job['id']}", "-h", "-o", "%l").strip()
    assert limit == "3:10:00"  # one hour, two more, and the margin
    await slurm.call("terminate", job)
    await ended(slurm, job)


async def test_a_job_that_waits_says_why_and_may_be_cancelled(slurm: Served) -> None:
    first, second = shell_job("sleep 300", replicas=4), shell_job("echo never", replicas=4)
    slurm_options = slurm.settings.executors[0].slurm
    slurm_options.cores = 8
    await running(slurm, first)
    await slurm.call("", second)
    await eventually(lambda: "position 1 of partition main" in texts(slurm, second), 40)
    await eventually(
        lambda: "Resources" in texts(slurm, second) or "Priority" in texts(slurm, second), 40
    )
    assert len(slurm.reports.updates[second["id"]]) <= 3
    await slurm.call("terminate", second)
    assert await ended(slurm, second) == (
        JobState.SUCCESS,
        "The job was cancelled before it was started.",
    )
    await slurm.call("terminate", first)
    await ended(slurm, first)


async def test_the_name_of_anothers_job_cannot_forge_ours(slurm: Served, cluster: Cluster) -> None:
    job, later = shell_job("sleep 300"), shell_job("true")
    await running(slurm, job)
    (number,) = cluster.run("squeue", f"--name=ucloud-{job['id']}", "-h", "-o", "%i").split()
    lies = f"x\n{number}|COMPLETED|main|1|0|ucloud-{job['id']}|None|\nbroken"
    cluster.run(
        "sbatch",
        "--uid=65534",
        "--hold",
        f"--job-name={lies}",
        "--chdir=/",
        "--output=/dev/null",
        "--wrap=true",
    )
    assert "COMPLETED|main" in cluster.run("squeue", "-h", "-o", "%j")
    await slurm.call("", later)
    assert await ended(slurm, later) == (JobState.SUCCESS, "The job has finished with exit code 0.")
    assert await slurm.still_runs(job)
    cluster.run("scancel", "--user=nobody")
    await slurm.call("terminate", job)
    await ended(slurm, job)


async def test_a_cancel_by_an_administrator_is_said_to_be_one(
    slurm: Served, cluster: Cluster
) -> None:
    job = shell_job("sleep 300")
    await running(slurm, job)
    cluster.run("scancel", f"--name=ucloud-{job['id']}")
    state, text = await ended(slurm, job)
    assert state is JobState.FAILURE
    assert "administrator" in text


async def test_a_job_for_a_controller_that_is_down_waits_for_it(
    slurm: Served, cluster: Cluster
) -> None:
    job = shell_job("echo once")
    cluster.stop_controller()
    assert (await slurm.call("", job)).status_code == 200
    cluster.start_controller()
    assert await ended(slurm, job) == (JobState.SUCCESS, "The job has finished with exit code 0.")
    assert slurm.output(job, "stdout-0.txt") == "once\n"


async def test_a_command_is_run_in_a_replica_on_its_node(slurm: Served, cluster: Cluster) -> None:
    job = shell_job("sleep 300", replicas=2)
    await running(slurm, job)
    await eventually(lambda: len(slurm.processes_of(job)) > 1)
    reconciler = Reconciler(slurm.settings, JobDatabase(slurm.folder / "unused.sqlite"))
    executor = reconciler.executor_of(Job.model_validate(job))
    assert isinstance(executor, SlurmExecutor)
    script = (
        "cat /etc/ucloud/rank.txt; pwd; echo $UCLOUD_RANK; test -t 0 && echo terminal; grep "
        "CapEff /proc/self/status"
    )
    script += '; ls -d /proc/[0-9]* | wc -l; echo "said $1"'
    arguments = executor.exec_command(
        job["id"], 1, ["sh", "-c", script, "sh", "two  words 'and' more"]
    )
    ours, theirs = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *arguments, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    received = await asyncio.to_thread(_read_all, ours)
    assert await process.wait() == 0, received
    rank, folder, variable, terminal, rights, processes, said = received.splitlines()
    assert (rank, folder, variable) == ("1", "/work", "1")
    assert terminal == "terminal"
    assert int(rights.split()[1], 16) == 0
    assert int(processes) < 10
    assert said == "said two  words 'and' more"
    await slurm.call("terminate", job)
    await ended(slurm, job)


def _read_all(terminal: int) -> str:
    received = b""
    with contextlib.suppress(OSError), open(terminal, "rb", buffering=0) as reading:
        while part := reading.read(1000):
            received += part
    return received.decode()


async def test_links_that_come_while_a_job_waits_are_not_followed(
    slurm: Served, cluster: Cluster
) -> None:
    drive, secrets = slurm.folder / "drive", slurm.folder / "secrets"
    for folder in (drive / "in", secrets):
        folder.mkdir()
    slurm.settings.executors[0].slurm.cores = 8
    first, second, third = (
        shell_job(script, replicas=4)
        for script in ("sleep 300", "echo harm > in/file", "echo harm")
    )
    second["specification"]["resources"] = [{"type": "file", "path": "/data/in"}]
    await running(slurm, first)
    await slurm.call("", second, third)
    await eventually(lambda: len(names(cluster, second) + names(cluster, third)) == 2, 40)
    # This is what a third job of the same user can do.
    (drive / "in").rmdir()
    (drive / "in").symlink_to(secrets)
    output = slurm.folder / "provider" / "drives" / "home" / "Jobs" / third["id"]
    (output / "stdout-0.txt").unlink()
    (output / "stdout-0.txt").symlink_to(secrets / "written")
    await slurm.call("terminate", first)
    await ended(slurm, second)
    await ended(slurm, third)
    assert os.listdir(secrets) == []
    assert "in has changed since it was checked" in slurm.output(second, "stderr-0.txt")
    assert "stdout-0.txt has changed since it was checked" in slurm.output(third, "stderr-0.txt")


def test_what_is_outside_of_its_sandbox_yet_is_not_entered(tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/sh", "-c", "sleep 300; true"], start_new_session=True) as wrapper:
        (tmp_path / "pid").write_text(str(wrapper.pid))
        words = [
            "/bin/sh",
            "-c",
            scripts.EXEC_SCRIPT,
            "exec",
            str(tmp_path),
            "yes",
            "echo",
            "entered",
        ]
        entered = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
        os.killpg(wrapper.pid, signal.SIGKILL)
    assert (entered.returncode, entered.stdout) == (1, "")
    assert "has not started yet" in entered.stderr


async def test_a_terminal_on_a_node(slurm: Served, cluster: Cluster) -> None:
    job = shell_job("sleep 300", replicas=2)
    await running(slurm, job)
    async with terminal((await session_in(slurm, job, 1))["url"], 100, 30) as screen:
        await screen.type("echo rank-$(cat /etc/ucloud/rank.txt)-$UCLOUD_RANK in $PWD; stty size\n")
        await screen.read_until("rank-1-1 in /work")
        await screen.read_until("30 100")
        await screen.type("sh -c 'echo sta\"\"rted; sleep 250'\n")
        await screen.read_until("started")
        screen.text = ""
        await screen.type("\x03")
        await screen.read_until("# ")
        await screen.resize(132, 43)
        await screen.type('stty size; echo do""ne\n')
        await screen.read_until("done")
        await screen.type("exit 0\n")
        await screen.read_to_the_end()
        assert screen.code == 0
    item = {"job": job, "rank": 2, "sessionType": "SHELL"}
    assert (await slurm.call("interactiveSession", item)).status_code == 404
    await slurm.call("terminate", job)
    await ended(slurm, job)


async def test_nothing_of_a_job_has_the_providers_environment(
    slurm: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPORAL_API_KEY", SECRET)
    job = shell_job(scan() + "; sleep 300")
    await running(slurm, job)
    await eventually(lambda: "scanning" in slurm.output(job, "stdout-0.txt"))
    for _ in range(3):
        async with terminal((await session_in(slurm, job))["url"]) as screen:
            await screen.type("echo in''side\n")
            await screen.read_until("inside")
            # What starts a session is on the provider's machine, which only here is the node's too.
            assert [words for words in with_secret(slurm, job) if "--pty" not in words] == []
    async with terminal((await session_in(slurm, job))["url"]) as screen:
        await screen.type("touch /work/enough; exit\n")
        await screen.read_to_the_end()
    await eventually(lambda: "saw" in slurm.output(job, "stdout-0.txt"))
    assert slurm.output(job, "stdout-0.txt") == "scanning\nsaw the first\n"
    await slurm.call("terminate", job)
    await ended(slurm, job)
