"""Everything that is measured, as processes of this machine in a folder of their own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from ucloud_orchestrator.cli.stack import SERVER_OPTIONS
from ucloud_orchestrator.cli.supervisor import (
    ManagedProcess,
    accepts_connections,
    free_port,
    temporal_binary,
)

CATALOG = Path(__file__).parent / "catalog"
CACHED_WORKFLOWS = 1000
"""The worker's own default; the tests of memory need to know it."""


@dataclass(frozen=True)
class Measured:
    """The processes, and where they are."""

    address: str
    server: ManagedProcess
    worker: ManagedProcess
    floor: ManagedProcess
    acknowledging: ManagedProcess
    provider: ManagedProcess
    folder: Path
    metrics: dict[str, int]
    """The port of each worker's figures."""

    def cpu_seconds(self, part: ManagedProcess) -> float:
        """What it has used so far, of user and system time."""
        times = psutil.Process(part.pid).cpu_times()
        return float(times.user + times.system)

    def memory(self, part: ManagedProcess) -> int:
        """Its resident memory, in bytes."""
        return int(psutil.Process(part.pid).memory_info().rss)

    def server_calls(self, part: ManagedProcess) -> float:
        """How many calls it has made to the Temporal server so far, long polls included."""
        text = httpx.get(f"http://127.0.0.1:{self.metrics[part.name]}/metrics", timeout=10).text
        return sum(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith(("temporal_request{", "temporal_long_request{"))
        )


@contextlib.contextmanager
def measured(folder: Path) -> Iterator[Measured]:
    """Start everything with the settings of `ucloud-orchestrator dev`, and stop it at the end."""
    ports = {
        name: free_port()
        for name in ("temporal", "ui", "acknowledging", "provider", "worker", "floor")
    }
    address = f"127.0.0.1:{ports['temporal']}"
    worker = {
        "TEMPORAL_ADDRESS": address,
        "UCLOUD_CATALOG": str(CATALOG),
        "UCLOUD_DATABASE_URL": os.environ.get(
            "UCLOUD_BENCH_DATABASE_URL", f"sqlite+aiosqlite:///{folder}/store.sqlite"
        ),
        "UCLOUD_KEYS_DIR": str(folder / "keys"),
        "UCLOUD_MAX_CACHED_WORKFLOWS": str(CACHED_WORKFLOWS),
        "UCLOUD_METRICS_ADDRESS": f"127.0.0.1:{ports['worker']}",
        "UCLOUD_MONITOR_INTERVAL": "86400",
        "UCLOUD_PROVIDER_ADDRESSES": json.dumps(
            {
                "acknowledging": f"http://127.0.0.1:{ports['acknowledging']}",
                "local": f"http://127.0.0.1:{ports['provider']}",
            }
        ),
    }
    provider = {
        "TEMPORAL_ADDRESS": address,
        "UCLOUD_PROVIDER_DATA_DIR": str(folder / "provider"),
        "UCLOUD_PROVIDER_PORT": str(ports["provider"]),
        "UCLOUD_PROVIDER_PUBLIC_KEY_FILE": str(folder / "keys" / "local.public.pem"),
    }
    options = [word for option in SERVER_OPTIONS for word in option]
    server = [temporal_binary(), "server", "start-dev", "--port", str(ports["temporal"])]
    server += [
        "--ui-port",
        str(ports["ui"]),
        "--db-filename",
        str(folder / "temporal.sqlite"),
        *options,
    ]
    acknowledging = [sys.executable, "-m", "benchmarks.fake_provider", str(ports["acknowledging"])]
    acknowledging.append(str(folder / "keys" / "acknowledging.public.pem"))
    logs = folder / "logs"
    floor = {"TEMPORAL_ADDRESS": address, "UCLOUD_METRICS_ADDRESS": f"127.0.0.1:{ports['floor']}"}

    def python(name: str, command: list[str], environment: dict[str, str]) -> ManagedProcess:
        return ManagedProcess(
            name, command, environment, logs, lambda part: bool(part.ready_event())
        )

    parts = Measured(
        address,
        ManagedProcess(
            "temporal", server, {}, logs, lambda _: accepts_connections(ports["temporal"])
        ),
        python("worker", [sys.executable, "-m", "worker", "--json"], worker),
        python("floor", [sys.executable, "-m", "benchmarks.baseline"], floor),
        ManagedProcess(
            "acknowledging",
            acknowledging,
            {},
            logs,
            lambda _: accepts_connections(ports["acknowledging"]),
        ),
        python(
            "provider", [sys.executable, "-m", "ucloud_orchestrator.provider", "--json"], provider
        ),
        folder,
        {"worker": ports["worker"], "floor": ports["floor"]},
    )
    running: list[ManagedProcess] = []
    try:
        for part in (parts.server, parts.worker, parts.floor, parts.acknowledging, parts.provider):
            part.start()
            running.append(part)
            part.wait_until_ready()
            if part is parts.server:
                _set_up(os.environ | worker)
        yield parts
    finally:
        for part in reversed(running):
            part.stop()


def _set_up(environment: dict[str, str]) -> None:
    # The server answers its port a moment before it answers requests.
    for attempt in range(10):
        if not subprocess.run(
            [sys.executable, "-m", "worker", "setup"], env=environment, capture_output=True
        ).returncode:
            return
        time.sleep(0.2 * (attempt + 1))
    raise RuntimeError("The setup failed.")
