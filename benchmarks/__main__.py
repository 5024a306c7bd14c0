"""`make bench`, or `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from benchmarks.kinds import (
    FloorKind,
    Kind,
    OurKind,
    RealKind,
    SameMessagesKind,
    StartAndActivityKind,
)
from benchmarks.live import LiveLoad
from benchmarks.load import created_only, seen_jobs, whole_jobs
from benchmarks.processes import Measured, measured
from benchmarks.psij_overhead import plain_processes, psij_jobs
from benchmarks.report import table, write_plots
from benchmarks.results import Results
from ucloud_orchestrator.temporal.connection import connect_to_temporal

JOBS = {1: 20, 10: 80, 50: 200, 200: 400}
"""How many jobs a round has, for each number of concurrent ones."""
REAL_JOBS = 60


def main() -> int:
    """Measure, and write `results.json`, `table.md` and the plots."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument(
        "--output", type=Path, default=Path("benchmarks/results"), help="the folder for the results"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="how often each kind and load is measured, in turn"
    )
    parser.add_argument(
        "--concurrent", type=int, nargs="+", default=sorted(JOBS), choices=sorted(JOBS)
    )
    parser.add_argument(
        "--live",
        type=int,
        nargs="*",
        default=[100, 1000],
        help="numbers of live jobs; 10000 takes long",
    )
    chosen = parser.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    results = Results()
    with (
        tempfile.TemporaryDirectory(prefix="ucloud-bench-") as folder,
        measured(Path(folder)) as parts,
    ):
        try:
            uvloop.run(
                _measure(parts, results, chosen.rounds, chosen.concurrent, sorted(chosen.live))
            )
        finally:
            if results.rounds:
                results.write(chosen.output / "results.json")
    text = table(results)
    (chosen.output / "table.md").write_text(text)
    write_plots(results, chosen.output)
    sys.stdout.write(f"\n{text}\nWritten to {chosen.output}.\n")
    return 0


async def _measure(
    parts: Measured, results: Results, rounds: int, concurrent: list[int], live: list[int]
) -> None:
    temporal = await connect_to_temporal(parts.address)
    kinds: list[Kind] = [FloorKind(temporal), SameMessagesKind(temporal), OurKind(temporal)]
    for kind in kinds:  # what the first jobs cost is not of interest
        await whole_jobs(kind, temporal, parts, 5, 10)
    for number in range(rounds):
        for at_once in concurrent:
            for kind in kinds:
                done = await whole_jobs(kind, temporal, parts, at_once, JOBS[at_once])
                results.rounds.append(done)
                _say(
                    f"round {number + 1}, {at_once} at once, {kind.name}: {done.per_second:.1f} "
                    "jobs/s"
                )
        creating: tuple[Kind, ...] = (StartAndActivityKind(temporal), kinds[-1])
        for kind in creating:
            results.creates.append(await created_only(kind, 1, 30))
        for kind in kinds:
            results.seen.append(await seen_jobs(kind, 50, 200))
        results.rounds.append(await whole_jobs(RealKind(temporal), temporal, parts, 10, REAL_JOBS))
        for name, load in (("subprocess", plain_processes), ("PSI/J", psij_jobs)):
            seconds = await asyncio.to_thread(load, REAL_JOBS, 10)
            results.processes.setdefault(name, []).append(REAL_JOBS / seconds)
        _say(f"round {number + 1}: create, signals and real processes are measured")
    if live:
        jobs = LiveLoad(temporal, parts)
        for count in live:
            begun = time.perf_counter()
            results.live.append(await jobs.reach(count))
            _say(f"{count} live jobs, after {time.perf_counter() - begun:.0f} s")
        results.restart = await jobs.restart()
        _say(
            f"after kill -9 of the worker all react again within {results.restart.all_react:.1f} s"
        )


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the Temporal SDK may abort while the interpreter shuts down (decision 0006)
