"""Inject faults into a running stack; `--seed` repeats the schedule of a run."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.run import run


def main() -> int:
    """Return 0 if no promise was broken."""
    parser = argparse.ArgumentParser(prog="tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=1000, help="at least so many are accepted")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument(
        "--keep", type=Path, help="a new folder for all logs and databases, which stays"
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(
        prefix="ucloud-chaos-", ignore_cleanup_errors=True
    ) as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        report = asyncio.run(
            run(folder.resolve(), chosen.seed, chosen.faults, chosen.jobs, chosen.clients, _log)
        )
    _log(report.summary)
    for sentence in report.broken:
        _log(f"BROKEN: {sentence}")
    return bool(report.broken)


def _log(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # the Temporal SDK may abort while the interpreter shuts down (decision 0006)
