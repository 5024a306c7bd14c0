"""Run the command line without a Temporal server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.builders import specification_document

COMMAND = str(Path(sys.executable).parent / "ucloud-orchestrator")

TEN_MISTAKES = """
application: {name: "", version: "1"}
product: {id: cpu-1, category: cpu, provider: 7}
name: "no/slash"
replicas: 0
allowDuplicateJob: perhaps
parameters:
  text: {type: file, path: relative}
  number: {type: integer, value: many}
  strange: {type: nothing}
resources: [{type: peer, hostname: "-bad-", jobId: "1"}]
timeAllocation: {hours: 0, minutes: 75, seconds: 0}
"""


def run(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TEMPORAL_ADDRESS": "127.0.0.1:9"}  # the unused discard port
    return subprocess.run(
        [COMMAND, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        check=False,
    )


def test_ten_mistakes_get_ten_sentences(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(TEN_MISTAKES)
    done = run("submit", str(file))
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    fields = [
        "application.name",
        "product.provider",
        "name",
        "replicas",
        "allowDuplicateJob",
        "parameters.text.path",
        "parameters.number.value",
        "parameters.strange",
        "resources[0].hostname",
        "timeAllocation.minutes",
    ]
    assert len(lines) == 10
    assert all(any(line.startswith(f"{field}:") for line in lines) for field in fields), lines


def test_an_unknown_field_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text(json.dumps(specification_document(replica=3)))
    done = run("submit", str(file))
    assert (done.returncode, done.stderr) == (2, "replica is not a known field.\n")


def test_an_unreachable_server_exits_with_3() -> None:
    done = run("show", "some-job")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_wrong_usage_exits_with_2() -> None:
    done = run("no-such-command")
    assert (done.returncode, done.stderr) == (2, "No such command 'no-such-command'.\n")
    assert run("show").returncode == 2
    assert run("submit", "no-such-file.yaml").returncode == 2


def test_catalog_check_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text(
        "product: v1\nname: p\ncategory: {name: c, provider: missing}\n"
    )
    done = run("catalog", "check", str(tmp_path))
    assert done.returncode == 2
    assert f"{tmp_path}/broken.yaml:3:" in done.stdout
    assert (
        run("catalog", "check", str(Path(__file__).parents[2] / "examples" / "catalog")).returncode
        == 0
    )


def test_dev_without_a_catalog_names_the_option(tmp_path: Path) -> None:
    done = run("dev", "--data-dir", str(tmp_path / "data"), "--catalog", str(tmp_path / "none"))
    assert done.returncode == 3
    assert done.stderr == f"There is no catalog {tmp_path}/none: name its folder with --catalog.\n"


def test_dev_rejects_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = run(
            "dev",
            "--data-dir",
            str(tmp_path / "data"),
            "--ui-port",
            "0",
            "--temporal-port",
            str(port),
        )
    assert done.returncode == 3
    assert (
        done.stderr
        == f"Something listens on port {port} already: choose another with --temporal-port.\n"
    )


def test_modules_of_the_current_directory_are_not_imported(tmp_path: Path) -> None:
    for name in ("worker", "ucloud_orchestrator", "client"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('not {name}')")
    done = run("worker", folder=tmp_path)
    assert (done.returncode, "not " in done.stderr) == (3, False)
