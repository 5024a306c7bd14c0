"""The provider alone: its protocol over real HTTP, with real processes in real sandboxes."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import psij
import psutil
import pytest

from tests.builders import shell_job
from tests.provider.provider_process import (
    Reports,
    Served,
    ServedApart,
    kill_wrapper_of,
    sandboxed,
    serving,
)
from tests.provider.test_shells import terminal
from tests.waiting import eventually
from ucloud_orchestrator.models import JobState, JobUpdate
from ucloud_orchestrator.provider.executors import local, replica
from ucloud_orchestrator.provider.executors.local import MAXIMUM_REPLICAS
from ucloud_orchestrator.provider.executors.replica import Replica
from ucloud_orchestrator.provider.jobs.database import JobDatabase
from ucloud_orchestrator.provider.jobs.decisions import START_ATTEMPTS
from ucloud_orchestrator.provider.jobs.reconciler import ANSWER_TIMEOUT


async def test_a_job_runs_and_is_reported(provider: Served) -> None:
    job = shell_job("echo out; echo err >&2; echo kept > result.txt; pwd")
    answer = await provider.call("", job)
    assert answer.json()["responses"][0]["id"] == job["id"]
    end = await provider.end_of(job)
    assert (end.state, end.output_folder) == (JobState.SUCCESS, f"/home/Jobs/{job['id']}")
    assert provider.output(job, "stdout-0.txt") == "out\n/work\n"
    assert provider.output(job, "stderr-0.txt") == "err\n"
    assert provider.output(job, "result.txt") == "kept\n"
    await eventually(lambda: not (provider.folder / "provider" / "jobs" / job["id"]).exists())


async def test_a_repeat_does_not_start_it_twice(provider: Served) -> None:
    job = shell_job("echo once")
    answers = await asyncio.gather(*(provider.call("", job) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    await provider.end_of(job)
    assert (await provider.call("", job)).status_code == 200
    assert provider.output(job, "stdout-0.txt") == "once\n"


async def test_running_that_is_stored_when_the_answer_is_due_is_in_the_answer(
    provider: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = JobDatabase.mark_running

    async def slowly(
        database: JobDatabase, job_id: str, now: int, report: JobUpdate | None
    ) -> None:
        await asyncio.sleep(1.5 * ANSWER_TIMEOUT)
        await mark(database, job_id, now, report)

    monkeypatch.setattr(JobDatabase, "mark_running", slowly)
    job = shell_job("sleep 300")
    answer = (await provider.call("", job)).json()["responses"][0]
    reported = [update["state"] for update in answer.get("updates") or []]
    await eventually(lambda: reported or provider.reports.updates.get(job["id"]))
    assert JobState.RUNNING in (
        reported or [update.state for update in provider.reports.updates[job["id"]]]
    )


async def test_terminate_ends_the_whole_tree(provider: Served) -> None:
    job = shell_job("trap '' TERM; sleep 300 & sleep 300 & sleep 300")
    await provider.call("", job)
    await eventually(lambda: len(provider.processes_of(job)) > 1)
    processes = [
        child
        for process in provider.processes_of(job)
        for child in [process, *process.children(recursive=True)]
    ]
    began = time.monotonic()
    assert (await provider.call("terminate", job)).status_code == 200
    await eventually(lambda: not any(process.is_running() for process in processes))
    assert time.monotonic() - began < 5
    assert (await provider.end_of(job)).status == "Your job has been cancelled!"


async def test_a_job_that_was_terminated_before_is_never_started(provider: Served) -> None:
    job = shell_job("echo never")
    assert (await provider.call("terminate", job)).status_code == 200
    assert (await provider.call("", job)).status_code == 409
    assert not (provider.folder / "provider" / "drives" / "home" / "Jobs" / job["id"]).exists()


async def test_a_replica_that_fails_ends_the_job(provider: Served) -> None:
    job = shell_job('[ "$(cat /etc/ucloud/rank.txt)" = 1 ] && exit 3; sleep 300', replicas=3)
    await provider.call("", job)
    end = await provider.end_of(job)
    assert end.state is JobState.SUCCESS
    assert "rank 1: 3" in (end.status or "")
    assert "Rank 1 ended the job." in (end.status or "")
    await eventually(lambda: not provider.processes_of(job))


async def test_a_read_only_input_stays_as_it_is(provider: Served) -> None:
    (provider.folder / "drive" / "in.txt").write_text("given\n")
    given = {"type": "file", "path": "/data/in.txt", "readOnly": True}
    job = shell_job(
        "cat in.txt; echo changed > in.txt || echo refused", parameters={"input": given}
    )
    await provider.call("", job)
    await provider.end_of(job)
    assert provider.output(job, "stdout-0.txt") == "given\nrefused\n"
    assert (provider.folder / "drive" / "in.txt").read_text() == "given\n"
    assert not (provider.folder / "provider/drives/home/Jobs" / job["id"] / "in.txt").exists()


@pytest.mark.parametrize(
    "path",
    ["/data/missing", "/nodrive/x", "/data", "/data/link/passwd", "/data/hosts", "/data/new\nline"],
)
async def test_a_path_never_leaves_its_drive(provider: Served, path: str) -> None:
    (provider.folder / "drive" / "link").symlink_to("/etc")
    (provider.folder / "drive" / "hosts").symlink_to("/etc/hosts")
    answer = await provider.call(
        "", shell_job("true", parameters={"input": {"type": "file", "path": path}})
    )
    assert answer.status_code == 400
    assert "drive" in answer.json()["why"] or "There is no file" in answer.json()["why"]


async def test_the_sandbox_hides_the_machine(provider: Served) -> None:
    job = shell_job(
        f"ls {provider.folder} /root /home; ls -d /proc/[0-9]* | wc -l; id -u; touch /usr/x "
        "/etc/x || true"
    )
    await provider.call("", job)
    await provider.end_of(job)
    assert "provider.sqlite" not in provider.output(job, "stdout-0.txt")
    assert provider.output(job, "stderr-0.txt").count("Read-only file system") >= 1
    assert int(provider.output(job, "stdout-0.txt").splitlines()[0]) < 10


@sandboxed
async def test_jobs_have_the_machines_certificates_and_none_of_its_keys(provider: Served) -> None:
    job = shell_job("ls -A /etc/ssl; ls -A /etc/ssl/certs >&2")
    await provider.call("", job)
    await provider.end_of(job)
    public = {"ca-bundle.pem", "cert.pem", "certs", "openssl.cnf"}
    here = set(os.listdir("/etc/ssl"))
    assert set(provider.output(job, "stdout-0.txt").splitlines()) == public & here
    if "certs" in here:
        assert set(provider.output(job, "stderr-0.txt").splitlines()) == set(
            os.listdir("/etc/ssl/certs")
        )


async def test_suspend_and_unsuspend(provider: Served) -> None:
    job = shell_job("i=0; while true; do i=$((i+1)); echo $i; sleep 0.05; done")
    await provider.call("", job)
    await eventually(lambda: len(provider.output(job, "stdout-0.txt")) > 10)
    assert (await provider.call("suspend", {"job": job})).status_code == 200
    states = await eventually(
        lambda: [p.status() for p in provider.processes_of(job) for p in p.children(True)]
    )
    assert psutil.STATUS_STOPPED in states
    assert (await provider.call("unsuspend", {"job": job})).status_code == 200
    written = len(provider.output(job, "stdout-0.txt"))
    await eventually(lambda: len(provider.output(job, "stdout-0.txt")) > written)
    await provider.call("terminate", job)
    await provider.end_of(job)
    assert (await provider.call("suspend", {"job": job})).status_code == 404


async def test_an_extension_may_be_repeated(provider: Served) -> None:
    job = shell_job("sleep 300")
    await provider.call("", job)
    for _ in range(2):
        answer = await provider.call("extend", {"job": job, "requestedTime": {"hours": 2}})
        assert answer.status_code == 200
    await provider.call("terminate", job)
    await provider.end_of(job)


async def test_reports_wait_until_they_are_delivered(provider: Served) -> None:
    provider.reports.is_down = True
    jobs = [shell_job("true"), shell_job("true")]
    await provider.call("", *jobs)
    await eventually(
        lambda: (provider.folder / "provider/drives/home/Jobs" / jobs[1]["id"]).exists()
    )
    provider.reports.closed.add(jobs[0]["id"])
    provider.reports.is_down = False
    await provider.end_of(jobs[1])
    assert jobs[0]["id"] not in provider.reports.updates


async def test_a_restart_finds_jobs_alive_and_dead(tmp_path: Path) -> None:
    served = Served(tmp_path, Reports())
    quick, slow, lost = (
        shell_job("sleep 1; exit 7"),
        shell_job("sleep 3; echo done"),
        shell_job("sleep 300"),
    )
    async with serving(served):
        await served.call("", quick, slow, lost)
        await eventually(
            lambda: all(len(served.processes_of(job)) > 1 for job in (quick, slow, lost))
        )
    for process in served.processes_of(lost):
        process.kill()
    await eventually(lambda: not served.processes_of(quick))
    assert served.processes_of(slow)
    async with serving(served):
        assert "exit code 7" in ((await served.end_of(quick)).status or "")
        assert "exit code 0" in ((await served.end_of(slow)).status or "")
        assert (await served.end_of(lost)).state is JobState.FAILURE
        assert served.output(slow, "stdout-0.txt") == "done\n"


async def test_a_job_outlives_a_provider_that_is_killed(tmp_path: Path) -> None:
    served, job = Served(tmp_path, Reports()), shell_job("echo begun; sleep 3; echo done; exit 7")
    apart = ServedApart(served)
    await served.call("", job)
    await eventually(lambda: "begun" in served.output(job, "stdout-0.txt"))
    apart.kill()
    async with serving(served):
        assert "exit code 7" in ((await served.end_of(job)).status or "")
    assert served.output(job, "stdout-0.txt") == "begun\ndone\n"


@sandboxed
async def test_a_program_does_not_outlive_its_wrapper(provider: Served) -> None:
    job = shell_job("trap '' TERM HUP; sleep 301 & sleep 302")
    await provider.call("", job)
    await kill_wrapper_of(provider, job)
    assert (await provider.end_of(job)).state is JobState.FAILURE


async def test_a_running_job_needs_its_input_no_more_when_the_provider_starts_again(
    tmp_path: Path,
) -> None:
    served = Served(tmp_path, Reports())
    (tmp_path / "drive" / "in.txt").write_text("given")
    given = {"type": "file", "path": "/data/in.txt"}
    job = shell_job("while [ ! -e /work/go ]; do sleep 0.05; done", parameters={"input": given})
    async with serving(served):
        await served.call("", job)
        await eventually(lambda: served.still_runs(job))
    (tmp_path / "drive" / "in.txt").unlink()
    async with serving(served):
        other = shell_job("true")
        await served.call("", other)
        await served.end_of(other)
        assert served.reports.ended(job["id"]) is None
        (tmp_path / "provider" / "jobs" / job["id"] / "work" / "go").touch()
        end = await served.end_of(job)
    assert (end.state, end.status) == (JobState.SUCCESS, "The job has finished with exit code 0.")


async def test_a_job_that_starts_only_in_part_leaves_no_process(
    provider: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Replica.start

    def start_but_one(started: Replica, *arguments: Any) -> psij.Job:
        if started.rank == 1:
            while provider.output(job, "stdout-0.txt") != "ready\n":
                time.sleep(0.02)
            raise psij.SubmitException("Cannot allocate memory")
        return start(started, *arguments)

    job = shell_job("echo ready; sleep 300", replicas=2)
    monkeypatch.setattr(Replica, "start", start_but_one)
    await provider.call("", job)
    end = await provider.end_of(job)
    assert end.state is JobState.FAILURE
    assert (end.status or "").startswith("The job could not be started: Cannot allocate memory")
    await eventually(lambda: not provider.processes_of(job))


@pytest.mark.parametrize("failures", [1, 2, 9])
@pytest.mark.parametrize("rank", [0, 1])
async def test_a_replica_whose_wrapper_does_not_begin_is_started_again_a_few_times(
    provider: Served, monkeypatch: pytest.MonkeyPatch, rank: int, failures: int
) -> None:
    tries = f'[ $(ls "$1" | grep -c try) -lt {failures} ] && mktemp "$1/tryXXXXXX" && exit 0'
    monkeypatch.setattr(
        replica, "WRAPPER", f'case "$1" in *-{rank}) {tries};; esac\n{replica.WRAPPER}'
    )
    job = shell_job("echo once", replicas=2)
    await provider.call("", job)
    end = await provider.end_of(job)
    if failures < START_ATTEMPTS:
        assert end.state is JobState.SUCCESS
        assert [provider.output(job, f"stdout-{one}.txt") for one in range(2)] == ["once\n"] * 2
    else:
        text = "The job could not be started: of 3 attempts none began all of its replicas."
        assert (end.state, end.status) == (JobState.FAILURE, text)
    await eventually(lambda: not provider.processes_of(job))


@pytest.mark.parametrize("timeout", [0.1, 2.0])
async def test_replicas_that_end_before_rank_0_has_begun_leave_it_its_network(
    provider: Served, monkeypatch: pytest.MonkeyPatch, timeout: float
) -> None:
    monkeypatch.setattr(local, "BEGIN_TIMEOUT", timeout)
    slow, begins = (
        'case "$control" in *-0) sleep 1;; esac\n',
        'mkdir "$control/started" || exit 0\n',
    )
    monkeypatch.setattr(replica, "WRAPPER", replica.WRAPPER.replace(begins, slow + begins + slow))
    job = shell_job("echo once", replicas=3)
    await provider.call("", job)
    assert (
        await provider.end_of(job)
    ).status == "The job has finished with exit codes rank 0: 0, rank 1: 0, rank 2: 0."
    assert [provider.output(job, f"stdout-{rank}.txt") for rank in range(3)] == ["once\n"] * 3


@sandboxed
@pytest.mark.parametrize("delay", [0.3, 1.5 * ANSWER_TIMEOUT])
async def test_a_terminal_can_be_opened_as_soon_as_the_job_runs(
    provider: Served, monkeypatch: pytest.MonkeyPatch, delay: float
) -> None:
    slow = replica.WRAPPER.replace('"$@" <', f'sleep {delay}\n"$@" <')
    monkeypatch.setattr(replica, "WRAPPER", slow)
    job = shell_job("sleep 300", replicas=2)
    answer = (await provider.call("", job)).json()["responses"][0]
    if not answer.get("updates"):
        await eventually(lambda: provider.reports.updates.get(job["id"]))
    for rank in range(2):
        item = {"job": job, "rank": rank, "sessionType": "SHELL"}
        session = (await provider.call("interactiveSession", item)).json()["responses"][0]
        async with terminal(session["url"]) as screen:
            await screen.type("echo rank-$UCLOUD_RANK\n")
            await screen.read_until(f"rank-{rank}")
    await provider.call("terminate", job)
    await provider.end_of(job)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"replicas": MAXIMUM_REPLICAS + 1},
            "A job of cpu-1/cpu@local has 64 replicas at most.",
        ),
        (
            {"product": {"id": "no", "category": "cpu", "provider": "local"}},
            "There is no product no/cpu@local here.",
        ),
    ],
)
async def test_a_job_that_cannot_run_here_is_rejected(
    provider: Served, changes: dict[str, Any], why: str
) -> None:
    answer = await provider.call("", shell_job("true", **changes))
    assert (answer.status_code, answer.json()["why"]) == (400, why)


async def test_a_repeat_is_accepted_where_a_new_job_would_be_rejected(
    provider: Served,
) -> None:
    (provider.folder / "drive" / "in.txt").write_text("given")
    job = shell_job(
        "echo begun; sleep 300", parameters={"input": {"type": "file", "path": "/data/in.txt"}}
    )
    await provider.call("", job)
    output = provider.folder / "provider" / "drives" / "home" / "Jobs" / job["id"] / "stdout-0.txt"
    await eventually(lambda: output.exists() and output.read_text() == "begun\n")
    (provider.folder / "drive" / "in.txt").unlink()
    assert (await provider.call("", job)).status_code == 200
    await provider.call("terminate", job)
    assert (await provider.end_of(job)).status == "Your job has been cancelled!"


async def test_products_and_utilization(provider: Served) -> None:
    products = (await provider.call("retrieveProducts")).json()["responses"]
    assert products[0]["product"] == {"id": "cpu-1", "category": "cpu", "provider": "local"}
    assert products[0]["support"]["native"]["enabled"] is True
    utilization = (await provider.call("retrieveUtilization")).json()
    assert utilization["capacity"]["memory"] > utilization["usedCapacity"]["memory"] > 0
