"""Read the examples of `deploy/` as programs do."""

from __future__ import annotations

import re
from pathlib import Path

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
LINE = re.compile(r"^(?P<off>#?)(?P<name>[A-Z][A-Z0-9_]+)=(?P<value>.*)$")


def variables(file: str, all_lines: bool = False) -> dict[str, str]:
    """Return the variables of an environment file; with `all_lines`, commented ones too."""
    found = [LINE.match(line) for line in (DEPLOY / file).read_text().splitlines()]
    return {
        line["name"]: line["value"] for line in found if line and (all_lines or not line["off"])
    }
