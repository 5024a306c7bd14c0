"""Files: those of a job are deleted at its end, its output is kept, and drives are unchanged."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.builders import shell_job
from tests.provider.provider_process import Reports, Served, sandboxed, serving
from tests.waiting import eventually
from ucloud_orchestrator.models import JobState
from ucloud_orchestrator.provider.files import output_files, trees
from ucloud_orchestrator.provider.files.drives import Mount
from ucloud_orchestrator.provider.sandbox import bubblewrap


def output_folder(served: Served, job: dict[str, Any]) -> Path:
    return served.folder / "provider" / "drives" / "home" / "Jobs" / job["id"]


def output_of(served: Served, job: dict[str, Any]) -> dict[str, str]:
    """Return the contents of the output but the logs by path; of links, the target."""
    found = {}
    folder = output_folder(served, job)
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(parent, name)
            relative = str(path.relative_to(folder))
            if relative.startswith(("stdout-", "stderr-")):
                continue
            if path.is_symlink():
                found[relative] = f"-> {os.readlink(path)}"
            elif path.is_file():
                found[relative] = path.read_text()
    return found


def with_globs(job: dict[str, Any], *patterns: str) -> dict[str, Any]:
    job["status"]["resolvedApplication"]["application"]["outputFileGlobs"] = list(patterns)
    return job


async def run_to_end(served: Served, job: dict[str, Any]) -> str:
    """Run a job until its files are deleted; return its last status text."""
    answer = await served.call("", job)
    assert answer.status_code == 200, answer.text
    end = await served.end_of(job)
    await eventually(lambda: not (served.folder / "provider" / "jobs" / job["id"]).exists())
    return end.status or ""


@sandboxed
async def test_a_read_only_input_cannot_be_made_writable(provider: Served) -> None:
    (provider.folder / "drive" / "in").mkdir()
    (provider.folder / "drive" / "in" / "file").write_text("given")
    given = {"type": "file", "path": "/data/in", "readOnly": True}
    script = (
        "mount -o remount,bind,rw /work/in; umount /work/in; echo changed > /work/in/file; "
        "rm -rf in; mv in out; "
    )
    script += (
        "unshare -rm sh -c 'mount -o remount,bind,rw /work/in; echo changed > /work/in/file'; true"
    )
    job = shell_job(script, parameters={"input": given})
    await run_to_end(provider, job)
    assert (provider.folder / "drive" / "in" / "file").read_text() == "given"
    assert output_of(provider, job) == {}


async def test_globs_choose_files_and_folders(provider: Served) -> None:
    script = (
        "mkdir -p out/deep results other .hidden; for f in out/deep/a results/b.csv "
        "results/b.txt other/c d.txt e; "
    )
    script += "do echo $f > $f; done"
    job = with_globs(shell_job(script), "out", "results/*.csv", "*.txt")
    await run_to_end(provider, job)
    expected = ["out/deep/a", "results/b.csv", "d.txt"]
    assert output_of(provider, job) == {name: f"{name}\n" for name in expected}


async def test_any_name_is_kept(provider: Served) -> None:
    job = shell_job(
        "echo 1 > 'two\nlines'; echo 2 > ' * [a] '; echo 3 > -rf; mkdir 'a\nfolder'; echo 4 > "
        "'a\nfolder/x'"
    )
    await run_to_end(provider, job)
    expected = {"two\nlines": "1\n", " * [a] ": "2\n", "-rf": "3\n", "a\nfolder/x": "4\n"}
    assert output_of(provider, job) == expected


async def test_a_file_with_the_name_of_a_log_is_numbered(provider: Served) -> None:
    job = shell_job("echo mine > stdout-0.txt; echo log")
    await run_to_end(provider, job)
    assert provider.output(job, "stdout-0.txt") == "log\n"
    assert provider.output(job, "stdout-0.txt (1)") == "mine\n"


async def test_links_are_kept_as_links_and_never_followed(provider: Served) -> None:
    secret = provider.folder / "secret"
    secret.mkdir()
    (secret / "key").write_text("private")
    script = (
        f"ln -s {secret} folder; ln -s {secret}/key key; ln -s / root; mkdir d; ln -s "
        f"{secret} d/folder; ln -s . loop"
    )
    job = with_globs(
        shell_job(script), "*", "folder/*", "d/folder/*", "root/etc/passwd", "loop/loop/*"
    )
    await run_to_end(provider, job)
    expected = {
        "folder": str(secret),
        "key": f"{secret}/key",
        "root": "/",
        "d/folder": str(secret),
        "loop": ".",
    }
    assert output_of(provider, job) == {name: f"-> {target}" for name, target in expected.items()}
    assert (secret / "key").read_text() == "private"


async def test_a_mounted_folder_is_not_collected(provider: Served) -> None:
    mounted = provider.folder / "drive" / "result"
    mounted.mkdir()
    (mounted / "before").write_text("before")
    given = {"type": "file", "path": "/data/result"}
    script = (
        "echo new > result/new; rm -rf result; ln -s /data result; ln -s result other; echo "
        "new > result/new"
    )
    job = with_globs(shell_job(script, parameters={"input": given}), "*", "result/*", "other/*")
    (mounted / "before").chmod(0o644)
    await run_to_end(provider, job)
    # The job's own changes of its writable folder stay; the provider makes none.
    assert (mounted / "new").read_text() == "new\n"
    assert "result" not in output_of(provider, job)
    assert output_of(provider, job).get("other") == "-> result"


@pytest.mark.parametrize("end", ["success", "failure", "cancel", "no start"])
async def test_files_of_a_job_are_deleted_at_its_end(provider: Served, end: str) -> None:
    closed = "mkdir -p closed/inside; echo x > closed/inside/x; chmod 000 closed/inside closed; "
    script = {
        "success": "true",
        "failure": "exit 3",
        "cancel": "echo ready; sleep 300",
        "no start": "true",
    }[end]
    job = with_globs(shell_job(closed + script), "nothing")
    if end == "no start":
        # A link in place of the output folder: nothing may be written to its target.
        elsewhere = provider.folder / "elsewhere"
        elsewhere.mkdir()
        output_folder(provider, job).parent.mkdir(parents=True, exist_ok=True)
        output_folder(provider, job).symlink_to(elsewhere)
    await provider.call("", job)
    if end == "cancel":
        await eventually(lambda: "ready" in provider.output(job, "stdout-0.txt"))
        await provider.call("terminate", job)
    update = await provider.end_of(job)
    assert update.state is (JobState.FAILURE if end == "no start" else JobState.SUCCESS)
    await eventually(lambda: not (provider.folder / "provider" / "jobs" / job["id"]).exists())
    if end == "no start":
        assert list(elsewhere.iterdir()) == []
        assert "is not a folder" in (update.status or "")


async def test_a_log_is_not_written_through_a_link(provider: Served) -> None:
    job = shell_job("echo harm")
    victim = provider.folder / "victim"
    victim.write_text("unchanged")
    output_folder(provider, job).mkdir(parents=True)
    (output_folder(provider, job) / "stdout-0.txt").symlink_to(victim)
    assert "The log stdout-0.txt cannot be written" in await run_to_end(provider, job)
    assert victim.read_text() == "unchanged"


async def test_folders_without_permissions_are_collected(provider: Served) -> None:
    job = shell_job("mkdir out; echo x > out/x; chmod 500 out")
    await run_to_end(provider, job)
    assert output_of(provider, job) == {"out/x": "x\n"}


async def test_the_collection_is_completed_after_a_crash(tmp_path: Path) -> None:
    served = Served(tmp_path, Reports())
    half, over = shell_job("echo 1 > one; echo 2 > two; echo ready; sleep 2"), shell_job("true")
    async with serving(served):
        await served.call("", over)
        await served.end_of(over)
        await served.call("", half)
        await eventually(lambda: "ready" in served.output(half, "stdout-0.txt"))
    work = tmp_path / "provider" / "jobs" / half["id"] / "work"
    await eventually(lambda: not served.processes_of(half))
    # One file was moved before the crash; of the other job only the deletion was left.
    (work / "one").rename(output_folder(served, half) / "one")
    (tmp_path / "provider" / "jobs" / over["id"] / "work" / "x").mkdir(parents=True)
    async with serving(served):
        update = await served.end_of(half)
        assert update.output_folder == f"/home/Jobs/{half['id']}"
        assert output_of(served, half) == {"one": "1\n", "two": "2\n"}
        await eventually(lambda: list((tmp_path / "provider" / "jobs").iterdir()) == [])


async def test_a_failed_collection_does_not_block_other_jobs(provider: Served) -> None:
    name = "n" * 255
    job, other = shell_job(f"echo 1 > {name}; echo 2 > good; sleep 1"), shell_job("sleep 1.5")
    await provider.call("", job)
    await eventually(lambda: output_folder(provider, job).is_dir())
    (output_folder(provider, job) / name).write_text("first")  # a number makes the name too long
    await provider.call("", other)
    assert name in ((await provider.end_of(job)).status or "")
    assert output_of(provider, job)["good"] == "2\n"
    await provider.end_of(other)


async def test_a_path_that_ends_in_a_dot_is_rejected(provider: Served) -> None:
    (provider.folder / "drive" / "folder").mkdir()
    given = {"type": "file", "path": "/data/folder/."}
    answer = await provider.call("", shell_job("true", parameters={"input": given}))
    assert answer.status_code == 400


SWAP = """
import ctypes, sys
libc = ctypes.CDLL(None)
folder, link = (word.encode() for word in sys.argv[1:])
print("swapping", flush=True)
while True:
    libc.renameat2(-100, folder, -100, link, 2)  # swaps both atomically
"""


def test_output_is_not_moved_through_a_swapped_link(tmp_path: Path) -> None:
    work, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    work.mkdir()
    elsewhere.mkdir()
    for number in range(1000):
        (work / f"{number}").write_text("output")
    output = output_files.make_folder(tmp_path / "drive", "Jobs/id")
    link = output.with_name("link")
    link.symlink_to(elsewhere)
    words = [sys.executable, "-c", SWAP, str(output), str(link)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as swapping:
        assert swapping.stdout is not None
        assert swapping.stdout.readline() == b"swapping\n"
        failed = output_files.collect(work, output, ["*"], ())
        swapping.kill()
    assert list(elsewhere.iterdir()) == []
    (folder,) = (one for one in (output, link) if not one.is_symlink())
    assert len(list(folder.iterdir())) + len(failed) == 1000


async def test_other_users_cannot_read_the_files_of_jobs(provider: Served) -> None:
    job = shell_job("sleep 300")
    await provider.call("", job)
    await eventually(lambda: provider.still_runs(job))
    assert stat.S_IMODE((provider.folder / "provider" / "jobs").stat().st_mode) == 0o700
    await provider.call("terminate", job)
    await provider.end_of(job)


def test_a_folder_can_be_made_concurrently(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in range(200):
            inside = f"{number}/Jobs"
            made = set(
                pool.map(
                    lambda _, inside=inside: output_files.make_folder(tmp_path, inside), range(8)
                )
            )
            assert made == {tmp_path / inside}


@pytest.fixture
def work_elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A work folder on another file system than `tmp_path`."""
    other = Path("/dev/shm")
    if not os.access(other, os.W_OK) or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    work = other / f"work-{os.getpid()}"
    work.mkdir()
    yield work
    trees.delete_tree(work)
    assert not work.exists()


def test_output_crosses_file_systems_without_following_links(
    tmp_path: Path, work_elsewhere: Path
) -> None:
    work = work_elsewhere
    (work / "folder").mkdir()
    (tmp_path / "secret").write_text("private")
    (work / "link").symlink_to(tmp_path / "secret")
    (work / "folder" / "link").symlink_to(tmp_path)
    os.mkfifo(work / "pipe")
    assert output_files.collect(work, output_files.make_folder(tmp_path, "out"), ["*"], ()) == [
        "pipe"
    ]
    assert (tmp_path / "out" / "link").readlink() == tmp_path / "secret"
    assert (tmp_path / "out" / "folder" / "link").readlink() == tmp_path


def test_output_is_copied_to_another_file_system_once(tmp_path: Path, work_elsewhere: Path) -> None:
    (work_elsewhere / "out").mkdir()
    for name in ("out/file", "file"):
        (work_elsewhere / name).write_text(name)
    output = output_files.make_folder(tmp_path, "Jobs/id")
    for _ in range(2):  # the second one is that of a provider that was killed after the first
        assert output_files.collect(work_elsewhere, output, ["out", "out/*", "file"], ()) == []
    found = {str(path.relative_to(output)) for path in output.rglob("*")}
    assert found == {"out", "out/file", "file"}


def test_a_copied_input_keeps_its_permissions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bubblewrap, "is_available", lambda: False)
    source = tmp_path / "drive" / "in"
    (source / "inner").mkdir(parents=True)
    (source / "inner" / "file").write_text("given")
    for folder in (source / "inner", source):
        folder.chmod(0o555)
    bubblewrap.prepare_work(tmp_path / "work", {"in": Mount(tmp_path / "drive", "in", True)})
    assert (tmp_path / "work" / "in" / "inner" / "file").read_text() == "given"
    for folder in (source, source / "inner"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o555
        folder.chmod(0o755)


def make_deep_folder(folder: Path, name: str = "d" * 8, levels: int = 1500) -> None:
    """Nest folders, with a file in the last one; the default is longer than any path may be."""
    number = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=number)
        inner = os.open(name, os.O_PATH | os.O_DIRECTORY, dir_fd=number)
        os.close(number)
        number = inner
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=number))
    os.close(number)


def test_deep_folders_are_deleted(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "work" / name).mkdir(parents=True)
        make_deep_folder(tmp_path / "work" / name)
    (tmp_path / "work" / "closed" / "inner").mkdir(parents=True)
    for closed in (tmp_path / "work" / "closed" / "inner", tmp_path / "work" / "closed"):
        closed.chmod(0)
    (tmp_path / "kept").mkdir()
    (tmp_path / "work" / "link").symlink_to(tmp_path / "kept")
    trees.delete_tree(tmp_path / "work")
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept"]


def test_deep_folders_are_collected(tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "out").mkdir(parents=True)
    make_deep_folder(work / "out")
    output = output_files.make_folder(tmp_path / "drive", "Jobs/id")
    assert output_files.collect(work, output, ["out"], ()) == []
    trees.delete_tree(output / "out")


def test_a_deep_folder_is_copied(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    make_deep_folder(source, "d", 1100)
    target = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    trees.copy_tree(source, target, "copy")
    os.close(target)
    assert Path(tmp_path, "copy", *["d"] * 1100, "file").is_file()
    # pytest's own clean-up of `tmp_path` is recursive, and would fail.
    for folder in (source, tmp_path / "copy"):
        trees.delete_tree(folder)
