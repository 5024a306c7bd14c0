"""The comparison as a table in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from benchmarks.load import Round
from benchmarks.peers.systems import PeerRound
from benchmarks.results import Results, percentile, spread

OURS = "ours: the complete job"


def table(results: Results) -> str:
    """Medians of the rounds, with the smallest and largest in brackets, and ratios to ours in the
    same round.
    """
    about = results.about
    versions = ", ".join(
        f"{name} {number}" for name, number in (about["versions"] | about["peers"]).items()
    )
    lines = [
        f"{about['when']}, commit {about['commit']}, {about['machine']}, Python "
        f"{about['python']}, {versions}; load "
        f"average before the run {about['load before']}; an fsync of 4 kB takes "
        f"{about['fsync, ms']} ms.",
        "",
        "| System | at once | jobs/s | ours : this one | CPU of a job, ms | start to accepted "
        "p50, ms | p99, ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, concurrent in dict.fromkeys((one.kind, one.concurrent) for one in results.rounds):
        rounds = results.of(results.rounds, kind, concurrent)
        accepted = [time for one in rounds for time in one.create]
        cells = [
            kind,
            str(concurrent),
            spread([one.per_second for one in rounds]),
            ""
            if kind == OURS
            else spread(_ratios(results.of(results.rounds, OURS, concurrent), rounds)),
            spread([one.cpu * 1000 for one in rounds if isinstance(one, PeerRound)], 0),
            f"{median(accepted):.0f}",
            f"{percentile(accepted, 99):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _ratios(ours: Sequence[Round], theirs: Sequence[Round]) -> list[float]:
    # A peer that was left out after some rounds has fewer of them, and they are the first.
    return [one.per_second / other.per_second for one, other in zip(ours, theirs, strict=False)]
