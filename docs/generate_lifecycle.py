"""Renders the table of `workflows.lifecycle` as a page. `--check` compares it with the file.

Run as `python docs/generate_lifecycle.py [--check]`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ucloud_orchestrator.models.job import TERMINAL_STATES, JobState
from workflows.lifecycle import TABLE, Event, UpdateOutcome

DOCUMENT = Path(__file__).parent.parent / "docs" / "how-it-works" / "lifecycle.md"

_HEAD = """# The life of a job

`python docs/generate_lifecycle.py` makes this page from the table in `workflows/lifecycle.py`.
Do not edit it.
"""


def render() -> str:
    """Render the page in Markdown: a Mermaid diagram of the transitions, and the table."""
    return "\n".join([_HEAD, *_diagram(), "", *_table(), "", *_legend(), ""])


def _diagram() -> list[str]:
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> IN_QUEUE"]
    for state, row in TABLE.items():
        causes: dict[JobState, list[str]] = {}
        for event, transition in row.items():
            if transition.outcome is UpdateOutcome.APPLIED and transition.state is not state:
                causes.setdefault(transition.state, []).append(event.value)
        lines += [
            f"    {state} --> {target}: {', '.join(events)}" for target, events in causes.items()
        ]
    lines += [f"    {state} --> [*]" for state in JobState if state in TERMINAL_STATES]
    return [*lines, "```"]


def _table() -> list[str]:
    lines = [f"| event | {' | '.join(JobState)} |", "|---" * (len(JobState) + 1) + "|"]
    for event in Event:
        cells = [
            _cell(TABLE[state][event].outcome, TABLE[state][event].state) for state in JobState
        ]
        lines.append(f"| {event} | {' | '.join(cells)} |")
    return lines


def _cell(outcome: UpdateOutcome, state: JobState) -> str:
    return str(state) if outcome is UpdateOutcome.APPLIED else f"*{outcome}*"


def _legend() -> list[str]:
    return [
        "A cell has the state afterwards. An outcome in italics changes nothing: the update is",
        "ignored, counted and logged. A report of the current state adds its text; without a new",
        "text it is a duplicate.",
    ]


def main(arguments: list[str]) -> int:
    if "--check" in arguments:
        if DOCUMENT.is_file() and DOCUMENT.read_text() == render():
            return 0
        sys.stderr.write(f"{DOCUMENT} is out of date: run 'python docs/generate_lifecycle.py'.\n")
        return 1
    DOCUMENT.write_text(render())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
