"""The extras of this distribution that a process needs."""

from __future__ import annotations

import re
import sys
from importlib import metadata

DISTRIBUTION = "ucloud-orchestrator"
EXIT_CODE = 2
"""As for wrong usage: a restart does not help."""
_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+).*; extra == '(?P<extra>[\w-]+)'")


def require_extra(extra: str) -> None:
    """End the process with one sentence unless all libraries of the extra are installed.

    Called before the imports that need them, so that the user does not get a traceback.
    """
    missing = _missing(extra)
    if missing:
        sys.stderr.write(
            f"The extra '{extra}' is not installed ({', '.join(missing)}): "
            f"run pip install '{DISTRIBUTION}[{extra}]'.\n"
        )
        raise SystemExit(EXIT_CODE)


def _missing(extra: str) -> list[str]:
    """Return the extra's distributions that are not installed.

    Those for one platform only are left out. Without metadata (a plain checkout) there are none.
    """
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    found = (_REQUIREMENT.fullmatch(requirement) for requirement in requirements)
    names = [match["name"] for match in found if match and match["extra"] == extra]
    return [name for name in names if not _is_installed(name)]


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
