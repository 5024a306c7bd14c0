"""Writes `docs/how-it-works/provider-decisions.md` from the table of the provider's decisions.
`--check` only compares the file.

Run as `python docs/generate_provider_decisions.py [--check]`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from ucloud_orchestrator.provider.jobs import decisions
from ucloud_orchestrator.provider.jobs.decisions import (
    TABLE,
    Action,
    DesiredState,
    JobPhase,
    Observed,
)

DOCUMENT = Path(__file__).parent / "how-it-works" / "provider-decisions.md"

_HEAD = """# The decisions of the provider

Made from the table in `ucloud_orchestrator/provider/jobs/decisions.py` by
`python docs/generate_provider_decisions.py`; do not edit it by hand.

The provider is a reconciler. In each pass it observes every live job by its executor, decides by
this table, and performs the action. The desired state and the phase are in the provider's database;
the observation is new in each pass.
"""


def render() -> str:
    """Return the page in Markdown: the whole table, and what its words mean."""
    lines = [_HEAD]
    for desired in DesiredState:
        lines += [f"## Desired state: {desired}", "", *_table(desired), ""]
    for kind, title in ((JobPhase, "Phases"), (Observed, "Observations"), (Action, "Actions")):
        lines += [f"## {title}", "", *_definitions(kind), ""]
    return "\n".join(lines)


def _table(desired: DesiredState) -> Iterator[str]:
    yield f"| observation | {' | '.join(f'phase {phase}' for phase in JobPhase)} |"
    yield "|---" * (len(JobPhase) + 1) + "|"
    for observed in Observed:
        cells = " | ".join(TABLE[desired][phase][observed] for phase in JobPhase)
        yield f"| {observed} | {cells} |"


def _definitions(kind: type[StrEnum]) -> Iterator[str]:
    """Read the docstrings of an enum's members, which Python does not keep."""
    module = ast.parse(Path(decisions.__file__).read_text())
    definition = next(
        node
        for node in module.body
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    )
    for member, text in zip(definition.body, definition.body[1:], strict=False):
        if not (isinstance(member, ast.Assign) and isinstance(text, ast.Expr)):
            continue
        name = member.targets[0]
        if isinstance(name, ast.Name) and isinstance(text.value, ast.Constant):
            yield f"- *{kind[name.id]}*: {' '.join(str(text.value.value).split())}"


def main(arguments: list[str]) -> int:
    if "--check" in arguments:
        if DOCUMENT.is_file() and DOCUMENT.read_text() == render():
            return 0
        sys.stderr.write(
            f"{DOCUMENT} is out of date: run 'python docs/generate_provider_decisions.py'.\n"
        )
        return 1
    DOCUMENT.write_text(render())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
