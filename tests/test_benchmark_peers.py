"""The comparison with peers where nothing of them is installed, and what its table says."""

from __future__ import annotations

import pytest

from benchmarks.peers.environments import requirements, version_of
from benchmarks.peers.report import OURS, table
from benchmarks.peers.systems import PeerRound
from benchmarks.results import Results


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
