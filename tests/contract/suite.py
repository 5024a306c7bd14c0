"""The suite as a centre runs it: a process that is told a provider's address."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


async def ask(url: str, private_key: Path, temporal: str, *more: str, seconds: float) -> None:
    """Ask the provider there, with further options; it reports to a server at `temporal`.

    Fails with what was said.
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
    told = await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert told.returncode == 0, told.stdout[-4000:] + told.stderr[-2000:]
