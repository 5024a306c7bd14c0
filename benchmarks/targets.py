"""The targets of the benchmark, and whether a run met them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.kinds import BaselineKind, OurKind, RealKind, SameMessagesKind, StartAndActivityKind
from benchmarks.live import LiveJobs
from benchmarks.processes import CACHED_WORKFLOWS
from benchmarks.results import Results, percentile, ratio


@dataclass(frozen=True)
class Target:
    name: str
    value: float
    bound: float
    at_least: bool = False
    unit: str = ""

    @property
    def is_kept(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def targets(results: Results) -> Iterator[Target]:
    concurrent = (
        50 if any(one.concurrent == 50 for one in results.rounds) else results.rounds[0].concurrent
    )
    speeds = {
        kind: [one.per_second for one in results.of(results.rounds, kind, concurrent)]
        for kind in (BaselineKind.name, SameMessagesKind.name, OurKind.name)
    }
    ours = speeds[OurKind.name]
    at = f"at {concurrent} concurrent"
    yield Target(
        f"jobs/s {at}, of the floor", ratio(ours, speeds[BaselineKind.name]), 0.85, at_least=True
    )
    yield Target(
        f"jobs/s {at}, of the floor with the same messages",
        ratio(ours, speeds[SameMessagesKind.name]),
        0.95,
        True,
    )
    creates = {
        kind: [median(one.create) for one in results.of(results.creates, kind, 1)]
        for kind in (StartAndActivityKind.name, OurKind.name)
    }
    yield Target(
        "`create` p50, of a start and an activity",
        ratio(creates[OurKind.name], creates[StartAndActivityKind.name]),
        1.5,
    )
    events = [one.events for one in results.rounds if one.kind == RealKind.name]
    yield Target("events of a job at the reference provider", max(events), 25)
    visible = [time for one in results.signals if one.kind == OurKind.name for time in one.visible]
    if visible:
        spread = percentile(visible, 99) / median(visible)
        yield Target(
            f"signal to visible state at {results.signals[0].concurrent} concurrent, p99 / p50",
            spread,
            3,
        )
    if len(results.live) > 1:
        yield from _live_targets(results.live)


def _live_targets(live: Sequence[LiveJobs]) -> Iterator[Target]:
    few, many = live[0], live[-1]
    signals = median(many.signal) / median(few.signal)
    yield Target(
        f"p50 of a signal with {many.live} live jobs, of that with {few.live}", signals, 1.5
    )
    cached = [one for one in live if one.live <= CACHED_WORKFLOWS]
    grown = (cached[-1].worker_memory - cached[0].worker_memory) / (
        cached[-1].live - cached[0].live
    )
    yield Target("worker memory of a cached live job", grown / 1000, 60, unit="kB")
    if many.live > CACHED_WORKFLOWS:
        beyond = (many.worker_memory - cached[-1].worker_memory) / (many.live - cached[-1].live)
        yield Target("worker memory of a live job that is not cached", beyond / 1000, 6, unit="kB")
