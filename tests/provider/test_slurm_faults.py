"""The provider on a real Slurm cluster when something is killed: its reports stay true."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import shell_job
from tests.provider.provider_process import (
    Reports,
    Served,
    ServedApart,
    kill_wrapper_of,
    serving,
)
from tests.provider.slurm_provider import cluster, slurm, slurm_served
from tests.provider.test_charging import paid
from tests.provider.test_slurm import ended, names, running, states
from tests.slurm.cluster import NODES, Cluster
from tests.waiting import eventually
from ucloud_orchestrator.models import JobState

__all__ = ["cluster", "slurm"]
pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]


@pytest.fixture(autouse=True)
def _whole(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.repair()


async def test_a_provider_killed_under_a_running_job_finds_it_again(
    cluster: Cluster, tmp_path: Path
) -> None:
    served, job = (
        slurm_served(tmp_path, Reports()),
        shell_job("echo begun; sleep 6; echo done; exit 7"),
    )
    apart = ServedApart(served)
    await served.call("", job)
    await eventually(lambda: len(served.processes_of(job)) > 1, 40)
    apart.kill()
    async with serving(served):
        assert await ended(served, job) == (
            JobState.SUCCESS,
            "The job has finished with exit code 7.",
        )
    assert served.output(job, "stdout-0.txt") == "begun\ndone\n"
    assert len(names(cluster, job)) == 1


async def test_a_running_job_needs_its_input_no_more(cluster: Cluster, tmp_path: Path) -> None:
    served = slurm_served(tmp_path, Reports())
    (tmp_path / "drive" / "in.txt").write_text("given")
    given = {"type": "file", "path": "/data/in.txt"}
    job = shell_job(
        "echo begun; while [ ! -e /work/go ]; do sleep 0.1; done; exit 7",
        parameters={"input": given},
    )
    apart = ServedApart(served)
    await served.call("", job)
    await eventually(lambda: "begun" in served.output(job, "stdout-0.txt"), 40)
    apart.kill()
    (tmp_path / "drive" / "in.txt").unlink()
    async with serving(served):
        await eventually(lambda: served.still_runs(job), 40)
        (tmp_path / "provider" / "jobs" / job["id"] / "work" / "go").touch()
        assert await ended(served, job) == (
            JobState.SUCCESS,
            "The job has finished with exit code 7.",
        )


async def test_a_job_that_ended_while_the_provider_was_dead_is_reported(
    cluster: Cluster, tmp_path: Path
) -> None:
    served, job = slurm_served(tmp_path, Reports()), shell_job("sleep 2; exit 7")
    apart = ServedApart(served)
    await served.call("", job)
    await eventually(lambda: len(served.processes_of(job)) > 1, 40)
    apart.kill()
    # Slurm forgets ended jobs after a while: what is not there any more has not succeeded by that.
    await eventually(lambda: not names(cluster, job), 60)
    async with serving(served):
        assert await ended(served, job) == (
            JobState.SUCCESS,
            "The job has finished with exit code 7.",
        )


async def test_a_provider_killed_at_once_submits_once(cluster: Cluster, tmp_path: Path) -> None:
    served, job = slurm_served(tmp_path, Reports()), shell_job("echo once; sleep 1", replicas=4)
    apart = ServedApart(served)
    await served.call("", job)
    await eventually(
        lambda: (
            (tmp_path / "provider" / "jobs" / job["id"] / "submitting").exists()
            or names(cluster, job)
        )
    )
    apart.kill()
    async with serving(served):
        state, _ = await ended(served, job)
    assert state is JobState.SUCCESS
    assert [served.output(job, f"stdout-{rank}.txt") for rank in range(4)] == ["once\n"] * 4


async def test_a_provider_killed_while_its_job_waits_finds_it_in_the_queue(
    cluster: Cluster, tmp_path: Path
) -> None:
    served, job = slurm_served(tmp_path, Reports()), shell_job("echo once")
    for node in NODES:
        cluster.run("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")
    apart = ServedApart(served)
    await served.call("", job)
    await eventually(lambda: names(cluster, job), 40)
    apart.kill()
    async with serving(served):
        await eventually(lambda: served.reports.updates.get(job["id"]), 40)
        cluster.repair()
        assert await ended(served, job) == (
            JobState.SUCCESS,
            "The job has finished with exit code 0.",
        )
    assert served.output(job, "stdout-0.txt") == "once\n"


async def test_a_peer_that_ended_before_the_job_could_start_is_named(
    slurm: Served, cluster: Cluster
) -> None:
    database = shell_job("sleep 300")
    await running(slurm, database)
    for node in NODES:
        cluster.run("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")
    peer = {"type": "peer", "hostname": "database", "jobId": database["id"]}
    web = shell_job("echo never", resources=[peer])
    await slurm.call("", web)
    await eventually(lambda: names(cluster, web), 40)
    await slurm.call("terminate", database)
    await ended(slurm, database)
    cluster.repair()
    state, text = await ended(slurm, web)
    assert state is JobState.FAILURE
    assert text.startswith(
        f"The peer database (job {database['id']}) does not run at this provider any more."
    )
    assert JobState.RUNNING not in states(slurm, web)
    assert slurm.output(web, "stdout-0.txt") == ""


async def test_a_node_that_fails_is_named_as_the_reason(slurm: Served, cluster: Cluster) -> None:
    job = shell_job("sleep 300", replicas=4)
    await running(slurm, job)
    cluster.kill("n2")
    state, text = await ended(slurm, job)
    assert state is JobState.FAILURE
    assert "node of the job failed" in text


def begin_an_hour_earlier(database: Path) -> None:
    """In a thread of its own: the provider, in the loop of the test, may be about to write."""
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        connection.execute("UPDATE meters SET started_at = started_at - 3600000")


async def test_a_requeued_job_waits_and_runs_again(cluster: Cluster, tmp_path: Path) -> None:
    served = slurm_served(tmp_path, Reports())
    served.settings.executors[0].slurm.requeue = True
    job = shell_job(
        "echo begun >> /work/begun; if [ $(wc -l < /work/begun) -gt 1 ]; then exit 4; fi; sleep 300"
    )
    job = paid(job, unitOfPrice="CREDITS_PER_MINUTE")
    async with serving(served):
        await running(served, job)
        # Requeued before it has written this, it would not know that it has run already.
        await eventually((tmp_path / "provider" / "jobs" / job["id"] / "work" / "begun").exists)
        cluster.run(
            "scontrol",
            "requeue",
            *cluster.run("squeue", f"--name=ucloud-{job['id']}", "-h", "-o", "%i").split(),
        )
        await eventually(lambda: JobState.IN_QUEUE in states(served, job), 40)
        # An hour goes by before it runs again, which is not charged.
        await asyncio.to_thread(begin_an_hour_earlier, tmp_path / "provider" / "provider.sqlite")
        cluster.release(f"ucloud-{job['id']}")
        state, text = await eventually(lambda: ended(served, job), 150)
    assert (state, text) == (JobState.SUCCESS, "The job has finished with exit code 4.")
    assert sum(charge.units for charge in served.reports.charges[job["id"]]) < 10


async def test_a_program_does_not_outlive_its_wrapper(slurm: Served) -> None:
    job = shell_job("trap '' TERM HUP; (sleep 301 &); sleep 302")
    await running(slurm, job)
    await kill_wrapper_of(slurm, job)
    assert (await ended(slurm, job))[0] is JobState.FAILURE


# The last one: what the controller has lost may drain nodes a while later.
async def test_a_controller_killed_and_started_again_changes_nothing(
    slurm: Served, cluster: Cluster
) -> None:
    job = shell_job("echo begun; sleep 8; exit 5")
    await running(slurm, job)
    cluster.kill("slurmctld")
    await eventually(lambda: not slurm.processes_of(job), 60)
    assert not slurm.reports.ended(job["id"])
    cluster.start_controller()
    assert await ended(slurm, job) == (JobState.SUCCESS, "The job has finished with exit code 5.")
    assert slurm.output(job, "stdout-0.txt") == "begun\n"
