"""The wheel and the sdist hold the product and nothing else, and each extra is complete."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packaging.environments import Environment

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("activities", "client", "ucloud_orchestrator", "workflows")
SOURCE_ONLY = {"CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml"}
BUILDERS_OWN = {".gitignore", "PKG-INFO"}
"""Hatchling adds these to every sdist."""
PROCESSES = {
    "ucloud-orchestrator": (("ucloud-orchestrator", "--help"), "cli"),
    "uco": (("uco", "--help"), "cli"),
    "worker": (("python", "-m", "worker", "--help"), "worker"),
    "provider": (("python", "-m", "ucloud_orchestrator.provider", "--help"), "provider"),
    "codec server": (("python", "-m", "ucloud_orchestrator.temporal.codec_server"), "codec-server"),
}
USERS_PROGRAM = """
import client_helpers
import models
from ucloud_orchestrator import Actor, JobClient, ProviderClient

import client

assert models.MINE == client_helpers.MINE == "the user's own"
assert client.JobClient is JobClient
assert client.ProviderClient is ProviderClient
assert client.Actor is Actor
"""
TYPED_PROGRAM = """
from ucloud_orchestrator import Actor, JobClient
from ucloud_orchestrator.models import Job


async def main() -> Job:
    jobs = await JobClient.connect(Actor(username="alice"))
    return await jobs.retrieve({argument})
"""


def build(tree: Path, folder: Path, target: str) -> Path:
    """Build the wheel or the sdist of a source tree, offline; returns its file."""
    ended = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", folder],
        cwd=tree,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("sdist"), "sdist")


@pytest.fixture(scope="module")
def environment(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Environment]:
    """Make an environment with the given extras, or return the one made before."""
    made: dict[tuple[str, ...], Environment] = {}

    def make(*extras: str) -> Environment:
        if extras not in made:
            made[extras] = Environment(tmp_path_factory.mktemp("environment"), wheel, extras)
        return made[extras]

    return make


def product_files() -> set[str]:
    """Return the paths of all files of the product in the source tree."""
    files = [file for room in PACKAGES for file in (ROOT / room).rglob("*") if file.is_file()]
    paths = {str(file.relative_to(ROOT)) for file in files if file.parent.name != "__pycache__"}
    return paths | {"worker.py"}


def wheel_content(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_holds_the_product_and_nothing_else(wheel: Path) -> None:
    content = wheel_content(wheel)
    about = {name for name in content if name.split("/")[0].endswith(".dist-info")}
    assert content.keys() - about == product_files()
    assert {name.partition("/")[2] for name in about} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
    }
    assert {f"{package}/py.typed" for package in PACKAGES} <= content.keys()


def test_the_sdist_holds_the_product_and_builds_the_same_wheel(
    wheel: Path, sdist: Path, tmp_path: Path
) -> None:
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
        archive.extractall(tmp_path, filter="data")
    assert names - BUILDERS_OWN == product_files() | SOURCE_ONLY
    (tree,) = tmp_path.iterdir()
    (tmp_path / "wheel").mkdir()
    assert wheel_content(build(tree, tmp_path / "wheel", "wheel")) == wheel_content(wheel)


def test_the_client_alone_leaves_names_to_its_user(
    environment: Callable[..., Environment], tmp_path: Path
) -> None:
    (tmp_path / "models.py").write_text('MINE = "the user\'s own"\n')
    (tmp_path / "client_helpers").mkdir()
    (tmp_path / "client_helpers" / "__init__.py").write_text("from models import MINE as MINE\n")
    (tmp_path / "program.py").write_text(USERS_PROGRAM)
    ended = environment().run("python", "program.py", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr


def test_importing_the_package_loads_no_temporal(environment: Callable[..., Environment]) -> None:
    program = "import sys, ucloud_orchestrator; print({'client', 'temporalio'} & {*sys.modules})"
    assert environment().run("python", "-c", program).stdout == "set()\n"


@pytest.mark.long
def test_users_programs_are_checked_against_our_types(
    environment: Callable[..., Environment], tmp_path: Path
) -> None:
    (tmp_path / "right.py").write_text(TYPED_PROGRAM.format(argument='"1"'))
    (tmp_path / "wrong.py").write_text(TYPED_PROGRAM.format(argument="1"))
    mypy = (sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file=")
    ended = subprocess.run(
        [*mypy, "--python-executable", environment().python, "right.py", "wrong.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    mistake, summary = ended.stdout.splitlines()
    assert mistake.startswith('wrong.py:8: error: Argument 1 to "retrieve" of "JobClient" has')
    assert summary == "Found 1 error in 1 file (checked 2 source files)"


@pytest.mark.parametrize(("command", "extra"), PROCESSES.values(), ids=PROCESSES.keys())
def test_a_process_without_its_extra_names_it_in_one_line(
    environment: Callable[..., Environment], command: tuple[str, ...], extra: str
) -> None:
    ended = environment().run(*command)
    assert ended.returncode == 2
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"The extra '{extra}' is not installed (")
    assert line.endswith(f"): run pip install 'ucloud-orchestrator[{extra}]'.")


@pytest.mark.long
@pytest.mark.parametrize(("command", "extra"), PROCESSES.values(), ids=PROCESSES.keys())
def test_an_extra_is_all_that_its_process_needs(
    environment: Callable[..., Environment], command: tuple[str, ...], extra: str
) -> None:
    ended = environment(extra).run(*command)
    if extra == "codec-server":  # it takes no arguments, and starts with its keys alone
        assert ended.returncode == 2
        assert "There is nothing to decrypt with" in ended.stderr
    else:
        assert ended.returncode == 0, ended.stderr
        assert "usage" in ended.stdout.lower()
