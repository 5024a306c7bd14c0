"""The comparison with peers where nothing of them is installed, and what its table says."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from benchmarks.peers.__main__ import SYSTEMS, main
from benchmarks.peers.environments import HERE, PeerUnavailable, requirements, version_of
from benchmarks.peers.report import OURS, table
from benchmarks.peers.systems import PeerRound
from benchmarks.results import Results

SCRIPTS = ("dbos_jobs.py", "prefect_jobs.py")


def test_without_the_peers_it_says_so_and_measures_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--no-install", "--environments", str(tmp_path), "--output", str(tmp_path / "results")]
    monkeypatch.setattr(sys, "argv", ["benchmarks.peers", *words])
    assert main() == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in said[:2]] == [
        "dbos is left out",
        "prefect is left out",
    ]
    assert said[2:] == ["No peer can be measured, so there is nothing to compare with."]
    assert not (tmp_path / "results").exists()


def test_a_peer_that_cannot_be_installed_is_left_out_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(
        sys,
        "argv",
        ["benchmarks.peers", "--peers", "prefect", "--environments", str(tmp_path / "file")],
    )
    assert main() == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(
        f"prefect is left out: it cannot be installed into {tmp_path}/file/prefect ("
    )
    assert "File exists" in said[0] or "Not a directory" in said[0]
    assert len(said) == 2


def test_a_peer_whose_process_ends_is_skipped_with_its_error() -> None:
    # The Python of the tests has no DBOS.
    with pytest.raises(PeerUnavailable, match="No module named 'dbos'"):
        SYSTEMS["dbos-sqlite"].measure(sys.executable, [1], lambda _: None)


def test_the_peers_scripts_import_nothing_of_ours() -> None:
    ours = {path.name for path in HERE.parent.parent.iterdir() if path.is_dir()} | {
        "worker",
        "codec_server",
    }
    for script in SCRIPTS:
        tree = ast.parse((HERE / script).read_text())
        imported = {
            node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
        }
        imported |= {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert {"httpx", script.partition("_")[0]} <= imported
        assert ours.isdisjoint({name.split(".")[0] for name in imported})


def test_the_table_compares_rounds_that_were_measured_one_after_the_other() -> None:
    results = Results()
    results.about |= {
        "peers": {"dbos": version_of("dbos"), "prefect": version_of("prefect")},
        "fsync, ms": 0.5,
    }
    for ours, theirs in (
        (2.0, 4.0),
        (2.0, 8.0),
        (10.0, 30.0),
    ):  # seconds: ours is 2, 4 and 3 times as fast
        results.rounds.append(PeerRound(OURS, 10, 20, ours, [5.0], cpu=0.05))
        results.rounds.append(
            PeerRound("DBOS, SQLite", 10, 20, theirs, [7.0, 9.0], cpu=theirs / 1000)
        )
    assert table(results).splitlines()[-2:] == [
        f"| {OURS} | 10 | 10.0 (2.0 to 10.0) |  | 50 (50 to 50) | 5 | 5 |",
        "| DBOS, SQLite | 10 | 2.5 (0.7 to 5.0) | 3.0 (2.0 to 4.0) | 8 (4 to 30) | 8 | 9 |",
    ]


@pytest.mark.parametrize("peer", ["dbos", "prefect"])
def test_each_requirement_of_a_peer_has_its_hashes_and_no_address(peer: str) -> None:
    text = requirements(peer).read_text()
    packages = [line for line in text.replace("\\\n", " ").splitlines() if "==" in line]
    assert packages
    assert all("--hash=sha256:" in line for line in packages)
    assert "://" not in text
