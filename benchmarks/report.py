"""The results as a table and plots; `python -m benchmarks.report FILE` writes them to the docs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.kinds import BaselineKind, OurKind, RealKind, SameMessagesKind, StartAndActivityKind
from benchmarks.load import Round
from benchmarks.results import Results, percentile, spread
from benchmarks.targets import targets

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAGE = Path(__file__).parent.parent / "docs" / "how-it-works" / "performance.md"
RESULTS = PAGE.with_suffix(".json")
START, END = "<!-- results -->", "<!-- end of results -->"
COLOURS = {BaselineKind.name: "#9aa5b1", SameMessagesKind.name: "#52606d", OurKind.name: "#0967d2"}


def table(results: Results) -> str:
    """Return the medians of the rounds, with the smallest and largest in brackets."""
    parts = [
        _about(results),
        _targets(results),
        _whole_jobs(results),
        _create_and_signal(results),
        _real(results),
    ]
    if results.live:
        parts.append(_live(results))
    return "\n".join(parts)


def _about(results: Results) -> str:
    about = results.about
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    return (
        f"{about['when']}, commit {about['commit']}, {about['machine']}, Python "
        f"{about['python']}, {versions}; "
        f"load average before the run {about['load before']}.\n"
    )


def _targets(results: Results) -> str:
    lines = ["| Target | Seen | Bound | Kept |", "| --- | ---: | ---: | --- |"]
    for one in targets(results):
        bound = f"{'≥' if one.at_least else '≤'} {one.bound:g} {one.unit}".strip()
        lines.append(
            f"| {one.name} | {f'{one.value:.2f} {one.unit}'.strip()} | {bound} | "
            f"{'yes' if one.is_kept else 'no'} |"
        )
    return "\n".join(lines) + "\n"


def _whole_jobs(results: Results) -> str:
    lines = [
        "| Whole jobs | at once | jobs/s | `create` p50, ms | p99, ms | events | history, kB | "
        "worker CPU, ms | "
        "server CPU, ms | worker's calls |",
        "| --- | " + " | ".join(["---:"] * 9) + " |",
    ]
    for kind, concurrent in dict.fromkeys((one.kind, one.concurrent) for one in results.rounds):
        if kind == RealKind.name:
            continue
        rounds = results.of(results.rounds, kind, concurrent)
        create = [time for one in rounds for time in one.create]
        cells = [
            kind,
            str(concurrent),
            spread([one.per_second for one in rounds]),
            f"{median(create):.0f}",
            f"{percentile(create, 99):.0f}",
            f"{median(one.events for one in rounds):.0f}",
            f"{median(one.history_bytes for one in rounds) / 1000:.1f}",
            spread([one.worker_cpu * 1000 for one in rounds], 0),
            spread([one.server_cpu * 1000 for one in rounds], 0),
            f"{median(one.worker_calls for one in rounds):.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _create_and_signal(results: Results) -> str:
    lines = ["| One step | at once | p50, ms | p99, ms |", "| --- | ---: | ---: | ---: |"]
    for rounds, what in ((results.creates, "create"), (results.signals, "visible")):
        for kind, concurrent in dict.fromkeys((one.kind, one.concurrent) for one in rounds):
            times = [
                time for one in results.of(rounds, kind, concurrent) for time in getattr(one, what)
            ]
            name = "`create`" if what == "create" else "signal to visible state"
            name = "start and result" if kind == StartAndActivityKind.name else name
            cells = (
                f"{name}, {kind} | {concurrent} | {median(times):.0f} | {percentile(times, 99):.0f}"
            )
            lines.append(f"| {cells} |")
    return "\n".join(lines) + "\n"


def _real(results: Results) -> str:
    lines = ["| Processes that do nothing, 10 at once | per second |", "| --- | ---: |"]
    for name, speeds in results.processes.items():
        lines.append(f"| {name} | {spread(speeds)} |")
    lines.append(
        f"| {RealKind.name} | "
        f"{spread([one.per_second for one in _named(results.rounds, RealKind.name)])} |"
    )
    return "\n".join(lines) + "\n"


def _live(results: Results) -> str:
    lines = [
        "| Live jobs | signal p50, ms | query p50, ms | of the oldest, ms | list of 50, ms | "
        "worker, MB | server, MB |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in results.live:
        times = (median(times) for times in (one.signal, one.query, one.old_query, one.listing))
        cells = [str(one.live), *(f"{time:.0f}" for time in times)]
        cells += [f"{size / 1e6:.0f}" for size in (one.worker_memory, one.server_memory)]
        lines.append(f"| {' | '.join(cells)} |")
    if results.restart is not None:
        again = results.restart
        lines.append(
            f"\nAfter `kill -9` the worker serves again after {again.start:.1f} s, and the newest "
            f"{again.live} live "
            f"jobs have all answered after {again.all_react:.1f} s."
        )
    return "\n".join(lines) + "\n"


def write_plots(results: Results, folder: Path) -> None:
    """Write three PNG files: throughput, CPU of a job, and latencies by live jobs."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    loads = sorted({one.concurrent for one in results.rounds if one.kind in COLOURS})
    figure, axes = pyplot.subplots(figsize=(7, 4))
    _bars(axes, results, loads)
    _save(figure, folder / "throughput.png")
    figure, axes = pyplot.subplots(figsize=(7, 3.2))
    _cpu(axes, results, loads[-1] if 50 not in loads else 50)
    _save(figure, folder / "cpu.png")
    if len(results.live) > 1:
        figure, axes = pyplot.subplots(figsize=(7, 4))
        _many_live(axes, results)
        _save(figure, folder / "live-jobs.png")
    pyplot.close("all")


def _save(figure: object, file: Path) -> None:
    figure.tight_layout()  # type: ignore[attr-defined]
    figure.savefig(file, dpi=110, metadata={"Software": None})  # type: ignore[attr-defined]


def _bars(axes: Axes, results: Results, loads: Sequence[int]) -> None:
    for position, (kind, colour) in enumerate(COLOURS.items()):
        speeds = [
            [one.per_second for one in results.of(results.rounds, kind, load)] for load in loads
        ]
        middles = [median(one) for one in speeds]
        errors = [
            [middle - min(one) for middle, one in zip(middles, speeds, strict=True)],
            [max(one) - middle for middle, one in zip(middles, speeds, strict=True)],
        ]
        where = [number + 0.27 * (position - 1) for number in range(len(loads))]
        axes.bar(
            where, middles, 0.25, yerr=errors, label=kind, color=colour, ecolor="#222222", capsize=3
        )
    axes.set_xticks(range(len(loads)), [str(load) for load in loads])
    axes.set_xlabel("concurrent jobs")
    axes.set_ylabel("jobs per second")
    axes.set_ylim(top=1.4 * axes.get_ylim()[1])  # for the legend
    axes.set_title("Throughput (median, smallest and largest round)")
    axes.legend(frameon=False)


def _cpu(axes: Axes, results: Results, load: int) -> None:
    kinds = list(COLOURS)
    worker = [
        median(one.worker_cpu * 1000 for one in results.of(results.rounds, kind, load))
        for kind in kinds
    ]
    server = [
        median(one.server_cpu * 1000 for one in results.of(results.rounds, kind, load))
        for kind in kinds
    ]
    axes.barh(kinds, worker, color="#0967d2", label="worker")
    axes.barh(kinds, server, left=worker, color="#9aa5b1", label="Temporal server")
    axes.invert_yaxis()
    axes.set_xlabel("CPU of a job, ms")
    axes.set_title(f"What a job costs at {load} concurrent")
    axes.legend(frameon=False)


def _many_live(axes: Axes, results: Results) -> None:
    live = [one.live for one in results.live]
    for name, times in {
        "signal to visible state": [median(one.signal) for one in results.live],
        "query": [median(one.query) for one in results.live],
        "query of the oldest": [median(one.old_query) for one in results.live],
        "list of 50": [median(one.listing) for one in results.live],
    }.items():
        axes.plot(live, times, marker="o", label=name)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("live jobs")
    axes.set_ylabel("median, ms")
    axes.set_title("One job among many live ones")
    axes.legend(frameon=False)


def _named(rounds: Sequence[Round], kind: str) -> list[Round]:
    return [one for one in rounds if one.kind == kind]


def write_page(results: Results) -> None:
    """Write the table between the marks of the page, and the plots and results beside it."""
    text = PAGE.read_text()
    before, mark, rest = text.partition(START)
    _, end, after = rest.partition(END)
    PAGE.write_text(f"{before}{mark}\n{table(results)}{end}{after}")
    write_plots(results, PAGE.parents[1] / "images")
    results.write(RESULTS)


if __name__ == "__main__":
    write_page(Results.read(Path(sys.argv[1])))
