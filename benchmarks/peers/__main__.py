"""Our jobs and the same steps on DBOS and Prefect: `make bench-peers`, or `python -m
benchmarks.peers --help`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.peers.environments import ENVIRONMENTS, PeerUnavailable, python_of, version_of
from benchmarks.peers.report import OURS, table
from benchmarks.peers.systems import DbosPeer, Ours, PeerRound, PrefectPeer, System
from benchmarks.results import Results
from ucloud_orchestrator.cli.supervisor import StackError
from ucloud_orchestrator.process.shutdown import exit_process

JOBS = {1: 20, 10: 80, 50: 200}
"""The number of jobs in a round, by the number of concurrent jobs."""
FEWER_JOBS = {1: 5, 10: 20, 50: 50}
"""The same for far slower systems."""
SYSTEMS: dict[str, System] = {
    "ours": Ours(OURS, JOBS, (5, 20)),
    "dbos-sqlite": DbosPeer("DBOS, SQLite", JOBS, (5, 20), "sqlite", tuned=True),
    "dbos-sqlite-as-is": DbosPeer(
        "DBOS, SQLite, as it comes", FEWER_JOBS, (2, 4), "sqlite", tuned=False
    ),
    "dbos-postgresql": DbosPeer("DBOS, PostgreSQL", JOBS, (5, 20), "postgresql", tuned=True),
    "dbos-postgresql-as-is": DbosPeer(
        "DBOS, PostgreSQL, as it comes", JOBS, (5, 20), "postgresql", tuned=False
    ),
    "prefect": PrefectPeer("Prefect, its own server", FEWER_JOBS, (1, 2)),
}


def main() -> int:
    chosen = _parser().parse_args()
    pythons = _environments(chosen.peers, chosen.environments, not chosen.no_install)
    if not pythons:
        sys.stderr.write("No peer can be measured, so there is nothing to compare with.\n")
        return 2
    results = Results()
    results.about |= {
        "peers": {name: version_of(name) for name in pythons},
        "fsync, ms": _fsync_milliseconds(),
    }
    systems = [
        SYSTEMS["ours"],
        *(SYSTEMS[name] for name in chosen.peers if SYSTEMS[name].peer in pythons),
    ]
    failed: set[str] = set()
    for number in range(chosen.rounds):
        for system in systems:
            if system.name not in failed and not _measure(
                system, number, pythons, chosen.concurrent, results
            ):
                failed.add(system.name)
        if OURS in failed:
            return 1
    chosen.output.mkdir(parents=True, exist_ok=True)
    results.write(chosen.output / "peers.json")
    text = table(results)
    (chosen.output / "peers.md").write_text(text)
    sys.stdout.write(f"\n{text}\nWritten to {chosen.output}/peers.md and peers.json.\n")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.peers", description=__doc__)
    parser.add_argument(
        "--output", type=Path, default=Path("benchmarks/results"), help="the folder for the results"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="starts and measurements of each, in turn"
    )
    parser.add_argument(
        "--concurrent", type=int, nargs="+", default=sorted(JOBS), choices=sorted(JOBS)
    )
    parser.add_argument(
        "--peers",
        nargs="+",
        default=[*SYSTEMS][1:],
        choices=[*SYSTEMS][1:],
        help="the peers to measure",
    )
    parser.add_argument(
        "--environments",
        type=Path,
        default=ENVIRONMENTS,
        help="the folder of the peers' environments",
    )
    parser.add_argument("--no-install", action="store_true", help="measure only installed peers")
    return parser


def _environments(names: list[str], folder: Path, install: bool) -> dict[str, str]:
    pythons = {}
    for peer in dict.fromkeys(SYSTEMS[name].peer for name in names):
        try:
            pythons[peer] = python_of(peer, folder.resolve(), install)
        except PeerUnavailable as error:
            sys.stderr.write(f"{error}\n")
    return pythons


def _measure(
    system: System, number: int, pythons: dict[str, str], concurrent: list[int], results: Results
) -> bool:
    def done(one: PeerRound) -> None:
        results.rounds.append(one)
        what = f"round {number + 1}, {one.concurrent} at once, {one.kind}"
        sys.stdout.write(
            f"{what}: {one.per_second:.1f} jobs/s, {one.cpu * 1000:.0f} ms of CPU each\n"
        )
        sys.stdout.flush()

    try:
        system.measure(pythons.get(system.peer, ""), concurrent, done)
    except (PeerUnavailable, StackError) as error:
        sys.stderr.write(f"{system.name} is left out from here on: {str(error).rstrip('.')}.\n")
        return False
    return True


def _fsync_milliseconds() -> float:
    times = []
    with tempfile.NamedTemporaryFile(prefix="ucloud-peers-") as file:
        for _ in range(50):
            file.write(bytes(4096))
            file.flush()
            begun = time.perf_counter()
            os.fsync(file.fileno())
            times.append((time.perf_counter() - begun) * 1000)
    return round(median(times), 2)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stops the started processes
    exit_process(main())
