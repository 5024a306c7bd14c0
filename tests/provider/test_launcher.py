"""Files that other jobs replace between the check of a job and its start are not used."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.builders import shell_job
from tests.provider.provider_process import Served, sandboxed
from ucloud_orchestrator.models import Job, JobState
from ucloud_orchestrator.provider.executors.replica import STARTER
from ucloud_orchestrator.provider.files import output_files
from ucloud_orchestrator.provider.files.drives import Drives
from ucloud_orchestrator.provider.sandbox import bubblewrap, launcher


class CheckedJob:
    """A job after the check of its files and before its start."""

    def __init__(self, folder: Path, script: str, *inputs: dict[str, Any]) -> None:
        self.folder = folder
        self.drive = folder / "drive"
        self.victim = folder / "victim"
        for made in (self.victim, folder / "work", folder / "ucloud", self.drive / "a" / "b"):
            made.mkdir(parents=True)
        (self.victim / "b").mkdir()
        for file in (self.victim / "secret", self.victim / "b" / "secret"):
            file.write_text("private")
        (self.drive / "a" / "b" / "file").write_text("given")
        output = output_files.make_folder(self.drive, "Jobs/id")
        self.logs = [
            output_files.make_log(output / name) for name in ("stdout-0.txt", "stderr-0.txt")
        ]
        job = Job.model_validate(shell_job(script, resources=list(inputs)))
        spec = bubblewrap.SandboxSpec(
            work=folder / "work",
            ucloud=folder / "ucloud",
            mounts=Drives({"data": self.drive}).mounts(job),
            environment={"PATH": bubblewrap.PATH},
            changes_directory=True,
        )
        self._words = bubblewrap.sandbox_command(["sh", "-c", script], spec)

    def start(self) -> int:
        """Run it, and return its exit code."""
        words = [*STARTER, launcher.__file__, *map(str, self.logs), *self._words]
        return subprocess.run(words, stdin=subprocess.DEVNULL, timeout=20, check=False).returncode


def given(path: str, **changes: Any) -> dict[str, Any]:
    return {"type": "file", "path": path} | changes


def replace_by_link(path: Path, target: Path) -> None:
    """Replace the path, as a job can that may write into its folder."""
    path.rename(path.with_name("moved"))
    path.symlink_to(target)


@sandboxed
def test_inputs_have_their_names(tmp_path: Path) -> None:
    (tmp_path / "drive" / "a").mkdir(parents=True)
    (tmp_path / "drive" / "link").symlink_to("a")
    script = "cat b/file file; echo new > b/file; echo no > file"
    job = CheckedJob(
        tmp_path, script, given("/data/link/b"), given("/data/a/b/file", readOnly=True)
    )
    job.start()
    assert job.logs[0].read_text() == "givengiven"
    assert "Read-only file system" in job.logs[1].read_text()
    assert (job.drive / "a" / "b" / "file").read_text() == "new\n"


@sandboxed
@pytest.mark.parametrize("replaced", ["a", "a/b"])
@pytest.mark.parametrize("read_only", [True, False])
def test_a_link_in_place_of_an_input_is_not_followed(
    tmp_path: Path, replaced: str, read_only: bool
) -> None:
    job = CheckedJob(
        tmp_path, "cat b/secret; echo harm > b/secret", given("/data/a/b", readOnly=read_only)
    )
    replace_by_link(job.drive / replaced, job.victim)
    assert job.start() == launcher.NOT_STARTED
    assert job.logs[0].read_text() == ""
    assert "has changed since it was checked" in job.logs[1].read_text()
    assert (
        (job.victim / "secret").read_text()
        == (job.victim / "b" / "secret").read_text()
        == "private"
    )


@pytest.mark.parametrize(
    "replaced", ["Jobs", "Jobs/id", "Jobs/id/stdout-0.txt", "Jobs/id/stderr-0.txt"]
)
def test_a_link_in_place_of_a_log_is_not_followed(tmp_path: Path, replaced: str) -> None:
    job = CheckedJob(tmp_path, "echo harm; echo harm >&2")
    (job.victim / "id").mkdir()
    names = {"Jobs": "id/", "Jobs/id": ""}
    victims = (
        [job.victim / names[replaced] / log.name for log in job.logs]
        if replaced in names
        else [job.victim / "secret"]
    )
    for victim in victims:
        victim.write_text("private")
    replace_by_link(job.drive / replaced, job.victim if replaced in names else victims[0])
    assert job.start() == launcher.NOT_STARTED
    assert [victim.read_text() for victim in victims] == ["private"] * len(victims)


async def test_a_pipe_in_place_of_a_log_does_not_block(provider: Served) -> None:
    job, other = shell_job("echo never"), shell_job("echo once")
    folder = provider.folder / "provider" / "drives" / "home" / "Jobs" / job["id"]
    os.makedirs(folder)
    os.mkfifo(folder / "stdout-0.txt")
    await provider.call("", job, other)
    end = await provider.end_of(job)
    assert end.state is JobState.FAILURE
    assert "The log stdout-0.txt cannot be written" in (end.status or "")
    await provider.end_of(other)
    assert provider.output(other, "stdout-0.txt") == "once\n"


@sandboxed
async def test_a_program_inherits_nothing_from_the_launcher(provider: Served) -> None:
    (provider.folder / "drive" / "in").mkdir()
    job = shell_job(
        "for p in 1 self; do ls /proc/$p/fd; done; grep SigIgn /proc/self/status",
        resources=[given("/data/in")],
    )
    await provider.call("", job)
    await provider.end_of(job)
    *descriptors, ignored = provider.output(job, "stdout-0.txt").splitlines()
    assert max(map(int, descriptors)) < launcher.FIRST
    # Other signals may be ignored by our parent, or by the C library.
    of_python = (signal.SIGPIPE, signal.SIGXFSZ)
    assert not any(int(ignored.split()[1], 16) & 1 << number - 1 for number in of_python)


@sandboxed
async def test_a_job_can_have_more_inputs_than_open_files(provider: Served) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    inputs = []
    for number in range(1100):
        (provider.folder / "drive" / f"in{number}").mkdir()
        inputs.append(given(f"/data/in{number}"))
    job = shell_job("ls | wc -l", resources=inputs)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, limits[1]))
    try:
        await provider.call("", job)
        await provider.end_of(job)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert provider.output(job, "stdout-0.txt") == "1100\n", provider.output(job, "stderr-0.txt")
