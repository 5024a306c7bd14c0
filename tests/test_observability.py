"""The alert rules and the configuration for Prometheus, by Prometheus's own tool."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "deploy" / "observability"


@pytest.mark.skipif(
    shutil.which("promtool") is None and "CI" not in os.environ,
    reason="needs Debian's package prometheus",
)
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
        ("check", "config", "prometheus.yml"),
    ],
    ids=" ".join,
)
def test_promtool_finds_nothing_wrong(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def alerts() -> list[str]:
    (group,) = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return [rule["alert"] for rule in group["rules"]]


def test_each_alert_has_a_line_in_the_runbook() -> None:
    page = (ROOT / "docs" / "operators" / "README.md").read_text()
    assert re.findall(r"^\| `(Ucloud\w+)`", page, re.MULTILINE) == alerts()
