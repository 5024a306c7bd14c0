"""Networks when jobs, peers or the provider end, and on machines that cannot have them."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import shell_job
from tests.provider.network_fixtures import (
    answers,
    connecting,
    held_by,
    jobs_folder,
    listen,
    listening,
    networked,
    peer,
    processes,
    separate,
    stop_all,
    with_python,
    written,
)
from tests.provider.provider_process import Reports, Served, ServedApart, serving
from tests.waiting import eventually
from ucloud_orchestrator.models import Job, JobState
from ucloud_orchestrator.provider.errors import NetworkNotFound
from ucloud_orchestrator.provider.jobs.database import JobDatabase
from ucloud_orchestrator.provider.network import namespaces
from ucloud_orchestrator.provider.network.networks import Networks
from ucloud_orchestrator.temporal.names import new_job_id

__all__ = ["networked"]
pytestmark = pytest.mark.long


@separate
async def test_networks_survive_the_provider(tmp_path: Path) -> None:
    served = with_python(Served(tmp_path, Reports()))
    database = listening()
    first = connecting(
        "db:5000",
        before="until [ -e /work/go ]; do sleep 0.1; done; ",
        resources=[peer("db", database)],
    )
    async with serving(served):
        await listen(served, database)
        await served.call("", first)
        await eventually(lambda: len(served.processes_of(first)) > 1)
    async with serving(served):
        second = connecting("db:5000", resources=[peer("db", database)])
        await served.call("", second)
        (jobs_folder(served) / first["id"] / "work" / "go").touch()
        for job in (first, second):
            assert await answers(served, job) == {"db:5000": f"{database['id']} 0"}
        await stop_all(served)


@separate
async def test_jobs_that_end_without_the_provider_leave_nothing(tmp_path: Path) -> None:
    served = with_python(Served(tmp_path, Reports()))
    apart = await asyncio.to_thread(ServedApart, served)
    database = listening(replicas=2)
    await listen(served, database)
    until = "echo up; until [ -e /work/go ]; do sleep 0.1; done; "
    asking = [
        connecting("db:5000", before=until, resources=[peer("db", database)]) for _ in range(4)
    ]
    long = shell_job("echo up; sleep 300", replicas=2)
    failing, missing = shell_job(f"{until}exit 3", replicas=2), shell_job("no-such-program")
    await served.call("", *asking, failing, long, missing)
    ranks = [
        *((job, 0) for job in asking),
        *((job, rank) for job in (failing, long) for rank in (0, 1)),
    ]
    await eventually(lambda: all(written(served, job, rank) == "up\n" for job, rank in ranks), 40)
    log = jobs_folder(served).parent / "drives" / "home" / "Jobs" / missing["id"] / "stderr-0.txt"
    await eventually(
        lambda: log.exists() and not (jobs_folder(served) / missing["id"]).exists(), 40
    )
    apart.kill()
    for job in (*asking, failing):
        (jobs_folder(served) / job["id"] / "work" / "go").touch()
    # Networks end with their jobs; those of the others are kept.
    alive = {database["id"], long["id"]}
    await eventually(
        lambda: {folder.parent.parent.name for folder, _ in held_by(served)} == alive, 40
    )
    held = {holder.pid for _, holder in held_by(served)}
    assert len(held) == 4
    # A crash may also have left a network whose job has ended and whose folder is gone.
    gone = jobs_folder(served) / "gone"
    held.add(namespaces.create(gone / "network" / "0", min(held)))
    shutil.rmtree(gone)
    async with serving(served):
        await eventually(lambda: {job["id"] for job in asking} <= served.reports.updates.keys(), 40)
        await stop_all(served)
    assert held_by(served) == []
    # No slirp4netns of them is left.
    await eventually(
        lambda: not [line for line in processes() if any(f"/proc/{one}/" in line for one in held)],
        40,
    )


@separate
async def test_a_replica_without_its_network_does_not_start(
    tmp_path: Path,
) -> None:
    served = with_python(Served(tmp_path, Reports()))
    job = Job.model_validate(shell_job("true"))
    networks = Networks(served.settings)
    await networks.create(job)
    ((_, holder),) = held_by(served)
    holder.kill()
    await eventually(lambda: not held_by(served))
    with pytest.raises(NetworkNotFound):
        networks.attachment(job.id, 0)
    await networks.remove(job.id)


@separate
async def test_connections_to_an_ended_peer_fail_at_once(networked: Served) -> None:
    database = listening()
    await listen(networked, database)
    wait = "until [ -e /work/go ]; do sleep 0.1; done; "
    job = connecting("db:5000", before=wait, resources=[peer("db", database)])
    await networked.call("", job)
    await eventually(lambda: len(networked.processes_of(job)) > 1)
    await networked.call("terminate", database)
    await networked.end_of(database)
    (jobs_folder(networked) / job["id"] / "work" / "go").touch()
    assert await answers(networked, job) == {"db:5000": "refused"}


@separate
async def test_a_peer_that_ended_before_the_start_fails_the_job(tmp_path: Path) -> None:
    served = with_python(Served(tmp_path, Reports()))
    job = shell_job("true", resources=[peer("db", {"id": new_job_id()})])
    database = JobDatabase(served.settings.data_dir / "provider.sqlite")
    await database.open()
    await database.accept([Job.model_validate(job)])
    await database.close()
    async with serving(served):
        end = await served.end_of(job)
        assert end.state is JobState.FAILURE
        assert "The peer db (job" in (end.status or "")


@separate
async def test_a_forwarder_ends_with_its_job_without_the_provider(tmp_path: Path) -> None:
    served = with_python(Served(tmp_path, Reports()))
    job = listening()
    async with serving(served):
        await listen(served, job)
        endpoint = await Networks(served.settings).endpoint(job["id"], 0, 5000)
    assert endpoint.socket is not None
    folder = endpoint.socket.parent
    assert folder.is_dir()
    for process in served.processes_of(job):
        process.kill()
    await eventually(lambda: not folder.exists(), 40)


@pytest.mark.parametrize("choice", ["separate", "auto"])
def test_a_machine_without_namespaces_is_reported(tmp_path: Path, choice: str) -> None:
    served = Served(tmp_path, Reports())
    environment = {
        "PATH": "/nonexistent",  # there is no nsenter
        "UCLOUD_PROVIDER_DATA_DIR": str(served.settings.data_dir),
        "UCLOUD_PROVIDER_PUBLIC_KEY_FILE": str(served.settings.public_key_file),
        "UCLOUD_PROVIDER_PORT": "0",
        "UCLOUD_PROVIDER_NETWORK": choice,
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
    command = [sys.executable, "-m", "ucloud_orchestrator.provider"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        ready = process.stdout.readline()
        process.terminate()
        errors = process.stderr.read()
    if choice == "separate":
        assert (process.returncode, ready) == (3, "")
        assert "Jobs cannot have networks of their own on this machine: " in errors
    else:
        assert "serves at" in ready
        assert "All jobs share this machine's network" in errors
