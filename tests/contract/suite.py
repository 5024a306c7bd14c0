"""The suite as a centre runs it: a process with a provider's address as an option."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


async def run_suite(url: str, private_key: Path, temporal: str, *more: str, seconds: float) -> None:
    """Test the provider at `url`, which reports to the server at `temporal`.

    Fails with the output of the suite.
    """
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/contract",
        "-q",
        "-x",
        "--durations=25",
        "-p",
        "no:cacheprovider",
        *more,
    ]
    command += [
        "--provider-url",
        url,
        "--private-key",
        str(private_key),
        "--temporal-address",
        temporal,
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    finished = await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-2000:]
