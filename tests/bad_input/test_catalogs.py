"""Load invalid catalogs: each mistake has a file, a line and a sentence; valid files are loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st

from tests.bad_input.payloads import almost, tries
from tests.bad_input.test_job_files import DIGITS
from ucloud_orchestrator.catalog import load

pytestmark = pytest.mark.long

COMMAND = str(Path(sys.executable).parent / "ucloud-orchestrator")
TIMEOUT = 60
"""Seconds, on a busy machine."""
CATALOG = Path(__file__).parents[2] / "examples" / "catalog"
ENTRIES: list[Any] = [
    document
    for file in sorted(CATALOG.glob("*.yaml"))
    for document in yaml.safe_load_all(file.read_text())
    if document is not None
]
TOOL = (
    "tool: v1\ntitle: T\nname: t\nversion: 1\nauthors: [a]\nbackend: NATIVE\ndefaultMaxTime: "
    "{hours: 1}\n"
)
BAD_FILES: dict[str, str | bytes] = {
    "an alias in itself": "&a [*a]",
    "a million digits": TOOL + f"defaultNumberOfNodes: {DIGITS}\n",
    "a million digits of a default": "application: v1\ntitle: A\nname: a\nversion: 1\nauthors: "
    "[a]\ndescription: d\n"
    "tool: {name: t, version: 1}\ninvocation: [a]\n"
    f"parameters: {{n: {{type: integer, defaultValue: {DIGITS}}}}}\n",
    "an endless bound": "application: v1\ntitle: A\nname: a\nversion: 1\nauthors: "
    "[a]\ndescription: d\n"
    "tool: {name: t, version: 1}\ninvocation: [a]\n"
    "parameters: {n: {type: floating_point, defaultValue: 1e999999999}}\n",
    "no text": b"\xff\xfe\xfa",
    "a null character": b"tool: \0",
    "a long key twice": f"{'a' * 5000}: 1\n{'a' * 5000}: 2\n",
    "control characters": TOOL + '"\\e[2J": 1\n',
}


def assert_sentences(folder: Path) -> None:
    for problem in load(folder).problems:
        assert problem.line >= 1
        assert problem.message.endswith((".", "…")), problem.message
        assert problem.message.isprintable(), problem.message
        assert len(problem.message) < 1000


@pytest.mark.parametrize("kind", BAD_FILES)
def test_an_invalid_file_is_reported_and_others_load(tmp_path: Path, kind: str) -> None:
    content = BAD_FILES[kind]
    (tmp_path / "bad.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "good.yaml").write_text(TOOL.replace("name: t", "name: good"))
    assert_sentences(tmp_path)
    catalog = load(tmp_path)
    assert "good" in {tool.name for tool in catalog.tools.values()}
    assert [problem for problem in catalog.problems if problem.file.name == "bad.yaml"]


@pytest.mark.parametrize("drive", ["..", ".", "a/b", "a\nb", "a\0"])
def test_a_drive_id_is_not_a_path(tmp_path: Path, drive: str) -> None:
    document = {"drive": "v1", "id": drive, "provider": "p", "owner": {"user": "a"}}
    (tmp_path / "a.yaml").write_text(
        f"provider: v1\nid: p\naddress: http://127.0.0.1:1\n---\n{json.dumps(document)}\n"
    )
    (problem,) = load(tmp_path).problems
    assert problem.message.startswith("id: ")


def test_catalog_check_prints_every_file(tmp_path: Path) -> None:
    for kind, content in BAD_FILES.items():
        file = tmp_path / f"{kind}.yaml"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = subprocess.run(
        [COMMAND, "catalog", "check", str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ,
        check=False,
        timeout=TIMEOUT,
    )
    assert (done.returncode, done.stderr) == (2, "")
    assert all(f"{tmp_path}/{kind}.yaml:" in done.stdout for kind in BAD_FILES), done.stdout


def test_any_catalog_loads_or_is_reported(tmp_path: Path) -> None:
    def check(text: str) -> None:
        (tmp_path / "a.yaml").write_text(text)
        assert_sentences(tmp_path)

    entries = st.sampled_from(ENTRIES).flatmap(almost)
    written = entries.map(json.dumps) | entries.map(yaml.safe_dump)
    both = st.builds(lambda first, second: f"{first}\n---\n{second}", written, written)
    tries(written | both, check, 160)
