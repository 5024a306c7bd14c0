"""Writes `docs/how-it-works/lifecycle.md` from the lifecycle's table. `--check` only says whether
the file is up to date.

Run as `python docs/generate_lifecycle.py [--check]`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ucloud_orchestrator.models.job import TERMINAL_STATES, JobState
from workflows.lifecycle import TABLE, Event, UpdateOutcome

DOCUMENT = Path(__file__).parent.parent / "docs" / "how-it-works" / "lifecycle.md"

_HEAD = """# The life of a job

Made from the table in `workflows/lifecycle.py` by `python docs/generate_lifecycle.py`; do not edit it by hand.
"""


def render() -> str:
    """The page, in Markdown, with a Mermaid diagram of the moves and the whole table."""
    return "\n".join([_HEAD, *_diagram(), "", *_table(), "", *_reading(), ""])


def _diagram() -> list[str]:
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> IN_QUEUE"]
    for state, row in TABLE.items():
        causes: dict[JobState, list[str]] = {}
        for event, move in row.items():
            if move.verdict is UpdateOutcome.APPLIED and move.state is not state:
                causes.setdefault(move.state, []).append(event.value)
        lines += [
            f"    {state} --> {target}: {', '.join(events)}" for target, events in causes.items()
        ]
    lines += [f"    {state} --> [*]" for state in JobState if state in TERMINAL_STATES]
    return [*lines, "```"]


def _table() -> list[str]:
    lines = [f"| event | {' | '.join(JobState)} |", "|---" * (len(JobState) + 1) + "|"]
    for event in Event:
        cells = [
            _cell(TABLE[state][event].verdict, TABLE[state][event].state) for state in JobState
        ]
        lines.append(f"| {event} | {' | '.join(cells)} |")
    return lines


def _cell(verdict: UpdateOutcome, state: JobState) -> str:
    return str(state) if verdict is UpdateOutcome.APPLIED else f"*{verdict}*"


def _reading() -> list[str]:
    return [
        "A cell names the state afterwards. What is in italics changes nothing: the update is "
        "ignored, counted and",
        "logged. A reported state that is the current one keeps its text, or is a duplicate if it "
        "says nothing new.",
    ]


def main(arguments: list[str]) -> int:
    """Write the page, or compare it; returns the exit code."""
    if "--check" in arguments:
        if DOCUMENT.is_file() and DOCUMENT.read_text() == render():
            return 0
        sys.stderr.write(f"{DOCUMENT} is out of date: run 'python docs/generate_lifecycle.py'.\n")
        return 1
    DOCUMENT.write_text(render())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
