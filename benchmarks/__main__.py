"""`make bench`, or `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from benchmarks.kinds import (
    BaselineKind,
    Kind,
    OurKind,
    RealKind,
    SameMessagesKind,
    StartAndActivityKind,
)
from benchmarks.live import LiveLoad
from benchmarks.load import measure_creates, measure_jobs, measure_signals
from benchmarks.processes import Processes, run_processes
from benchmarks.psij_overhead import plain_processes, psij_jobs
from benchmarks.report import table, write_plots
from benchmarks.results import Results
from ucloud_orchestrator.process.shutdown import exit_process
from ucloud_orchestrator.temporal.connection import connect_to_temporal

JOBS = {1: 20, 10: 80, 50: 200, 200: 400}
"""The number of jobs in a round, by the number of concurrent jobs."""
REAL_JOBS = 60


def main() -> int:
    """Run the benchmark, and write `results.json`, `table.md` and the plots."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument(
        "--output", type=Path, default=Path("benchmarks/results"), help="the folder for the results"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="repetitions of each kind and load, in turn"
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
        run_processes(Path(folder)) as processes,
    ):
        try:
            uvloop.run(
                _measure(processes, results, chosen.rounds, chosen.concurrent, sorted(chosen.live))
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
    processes: Processes, results: Results, rounds: int, concurrent: list[int], live: list[int]
) -> None:
    temporal = await connect_to_temporal(processes.address)
    kinds: list[Kind] = [BaselineKind(temporal), SameMessagesKind(temporal), OurKind(temporal)]
    for kind in kinds:  # warm up
        await measure_jobs(kind, temporal, processes, 5, 10)
    for number in range(rounds):
        for concurrent_jobs in concurrent:
            for kind in kinds:
                done = await measure_jobs(
                    kind, temporal, processes, concurrent_jobs, JOBS[concurrent_jobs]
                )
                results.rounds.append(done)
                _print(
                    f"round {number + 1}, {concurrent_jobs} at once, {kind.name}: "
                    f"{done.per_second:.1f} jobs/s"
                )
        creating: tuple[Kind, ...] = (StartAndActivityKind(temporal), kinds[-1])
        for kind in creating:
            results.creates.append(await measure_creates(kind, 1, 30))
        for kind in kinds:
            results.signals.append(await measure_signals(kind, 50, 200))
        results.rounds.append(
            await measure_jobs(RealKind(temporal), temporal, processes, 10, REAL_JOBS)
        )
        for name, load in (("subprocess", plain_processes), ("PSI/J", psij_jobs)):
            seconds = await asyncio.to_thread(load, REAL_JOBS, 10)
            results.processes.setdefault(name, []).append(REAL_JOBS / seconds)
        _print(f"round {number + 1}: create, signals and real processes are measured")
    if live:
        jobs = LiveLoad(temporal, processes)
        for count in live:
            begun = time.perf_counter()
            results.live.append(await jobs.measure(count))
            _print(f"{count} live jobs, after {time.perf_counter() - begun:.0f} s")
        results.restart = await jobs.restart()
        _print(
            f"after kill -9 of the worker all react again within {results.restart.all_react:.1f} s"
        )


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    exit_process(main())
