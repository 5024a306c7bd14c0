"""The processes of a benchmark: Temporal, worker, baseline, fake provider, provider."""

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
FAKE_PROVIDER = "fake"
"""Its id in that catalog."""
PORTS = ("temporal", "ui", FAKE_PROVIDER, "provider", "worker", "baseline")
CACHED_WORKFLOWS = 1000
"""The worker's default; beyond it a live job needs no memory of the worker."""


@dataclass(frozen=True)
class Processes:
    address: str
    server: ManagedProcess
    worker: ManagedProcess
    baseline: ManagedProcess
    fake_provider: ManagedProcess
    provider: ManagedProcess
    metrics: dict[str, int]
    """The metrics port of each worker."""

    def cpu_seconds(self, process: ManagedProcess) -> float:
        times = psutil.Process(process.pid).cpu_times()
        return float(times.user + times.system)

    def memory(self, process: ManagedProcess) -> int:
        """Return its resident memory in bytes."""
        return int(psutil.Process(process.pid).memory_info().rss)

    def server_calls(self, process: ManagedProcess) -> float:
        """Return the number of its calls to the Temporal server, with long polls."""
        text = httpx.get(f"http://127.0.0.1:{self.metrics[process.name]}/metrics", timeout=10).text
        return sum(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith(("temporal_request{", "temporal_long_request{"))
        )


@contextlib.contextmanager
def run_processes(folder: Path) -> Iterator[Processes]:
    """Start all processes with the settings of `ucloud-orchestrator dev`, and stop them."""
    processes = _processes(folder, {name: free_port() for name in PORTS})
    running: list[ManagedProcess] = []
    try:
        for process in (
            processes.server,
            processes.worker,
            processes.baseline,
            processes.fake_provider,
            processes.provider,
        ):
            process.start()
            running.append(process)
            process.wait_until_ready()
            if process is processes.server:
                _run_setup(os.environ | processes.worker.environment)
        yield processes
    finally:
        for process in reversed(running):
            process.stop()


def _processes(folder: Path, ports: dict[str, int]) -> Processes:
    address, keys, logs = f"127.0.0.1:{ports['temporal']}", folder / "keys", folder / "logs"

    def module(name: str, arguments: list[str], environment: dict[str, str]) -> ManagedProcess:
        command = [sys.executable, "-m", *arguments]
        environment = {"TEMPORAL_ADDRESS": address, **environment}
        return ManagedProcess(
            name, command, environment, logs, lambda process: bool(process.ready_event())
        )

    baseline = {"UCLOUD_METRICS_ADDRESS": f"127.0.0.1:{ports['baseline']}"}
    provider = {
        "UCLOUD_PROVIDER_DATA_DIR": str(folder / "provider"),
        "UCLOUD_PROVIDER_PORT": str(ports["provider"]),
        "UCLOUD_PROVIDER_PUBLIC_KEY_FILE": str(keys / "local.public.pem"),
    }
    return Processes(
        address=address,
        server=_temporal(folder, ports),
        worker=module("worker", ["worker", "--json"], _worker_settings(folder, ports)),
        baseline=module("baseline", ["benchmarks.baseline"], baseline),
        fake_provider=fake_provider(keys, ports[FAKE_PROVIDER], logs),
        provider=module("provider", ["ucloud_orchestrator.provider", "--json"], provider),
        metrics={name: ports[name] for name in ("worker", "baseline")},
    )


def fake_provider(keys: Path, port: int, logs: Path) -> ManagedProcess:
    """Return the process of the fake provider, not started."""
    key = str(keys / f"{FAKE_PROVIDER}.public.pem")
    command = [sys.executable, "-m", "benchmarks.fake_provider", str(port), key]
    return ManagedProcess(FAKE_PROVIDER, command, {}, logs, lambda _: accepts_connections(port))


def _temporal(folder: Path, ports: dict[str, int]) -> ManagedProcess:
    port = ports["temporal"]
    command = [
        *(temporal_binary(), "server", "start-dev"),
        *("--port", str(port), "--ui-port", str(ports["ui"])),
        *("--db-filename", str(folder / "temporal.sqlite")),
        *(word for option in SERVER_OPTIONS for word in option),
    ]
    return ManagedProcess(
        "temporal", command, {}, folder / "logs", lambda _: accepts_connections(port)
    )


def _worker_settings(folder: Path, ports: dict[str, int]) -> dict[str, str]:
    store = f"sqlite+aiosqlite:///{folder}/store.sqlite"
    addresses = {"local": ports["provider"], FAKE_PROVIDER: ports[FAKE_PROVIDER]}
    return {
        "UCLOUD_CATALOG": str(CATALOG),
        "UCLOUD_DATABASE_URL": os.environ.get("UCLOUD_BENCH_DATABASE_URL", store),
        "UCLOUD_KEYS_DIR": str(folder / "keys"),
        "UCLOUD_MAX_CACHED_WORKFLOWS": str(CACHED_WORKFLOWS),
        "UCLOUD_METRICS_ADDRESS": f"127.0.0.1:{ports['worker']}",
        "UCLOUD_PROVIDER_CHECK_INTERVAL": "86400",
        "UCLOUD_PROVIDER_ADDRESSES": json.dumps(
            {provider: f"http://127.0.0.1:{port}" for provider, port in addresses.items()}
        ),
    }


def _run_setup(environment: dict[str, str]) -> None:
    # The server accepts connections a moment before it serves requests.
    for attempt in range(10):
        if not subprocess.run(
            [sys.executable, "-m", "worker", "setup"], env=environment, capture_output=True
        ).returncode:
            return
        time.sleep(0.2 * (attempt + 1))
    raise RuntimeError("The setup failed.")
