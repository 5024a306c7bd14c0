"""Runs a stack on one machine: Temporal, the worker and a provider, with one data directory."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from ucloud_orchestrator.catalog import load
from ucloud_orchestrator.cli.settings import STACK_FILE
from ucloud_orchestrator.cli.supervisor import (
    OUR_PYTHON,
    ManagedProcess,
    StackError,
    accepts_connections,
    free_port,
    stack_environment,
    stop_orphans,
    temporal_binary,
)
from ucloud_orchestrator.models.backoff import Backoff
from ucloud_orchestrator.models.product import ProductSupport

SERVER_OPTIONS = (
    ("--sqlite-pragma", "journal_mode=wal"),
    ("--sqlite-pragma", "synchronous=normal"),
    ("--dynamic-config-value", "history.transferProcessorMaxPollRPS=1000"),
    ("--dynamic-config-value", "matching.numTaskqueueReadPartitions=1"),
    ("--dynamic-config-value", "matching.numTaskqueueWritePartitions=1"),
    # Messages that wait for a worker come to a job in one workflow task (decision 0013).
    ("--dynamic-config-value", "history.maxInFlightUpdatePayloads=1048576"),
    # Failed attempts until a workflow is reported as stuck; with the default of 5 a minute passes.
    (
        "--dynamic-config-value",
        "system.numConsecutiveWorkflowTaskProblemsToTriggerSearchAttribute=2",
    ),
    ("--log-level", "error"),
)
"""Measured: 2.4 times the throughput of the defaults, and half the time of a job."""
PROVIDER_ID = "local"
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
SETUP_ATTEMPTS = 10


@dataclass(frozen=True)
class Ports:
    """The ports of the loopback interface on which the stack listens; 0: a free one."""

    temporal: int = 7233
    ui: int = 8233
    provider: int = 8889

    def resolve(self) -> Ports:
        """Return the ports with free ones instead of zeros, which restarts keep."""
        return Ports(
            self.temporal or free_port(), self.ui or free_port(), self.provider or free_port()
        )


class Stack:
    def __init__(self, data_dir: Path, catalog: Path, ports: Ports) -> None:
        self.data_dir = data_dir.resolve()
        self.ports = ports.resolve()
        self._catalog = catalog.resolve()
        self._logs = self.data_dir / "logs"
        self.temporal = self._temporal_process()
        self.worker = self._python_process("worker", "worker", self._worker_environment())
        self.provider = self._python_process(
            "provider", "ucloud_orchestrator.provider", self._provider_environment()
        )
        self.processes = [self.temporal, self.worker, self.provider]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.ports.temporal}"

    @property
    def ui_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.ui}"

    @property
    def provider_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.provider}"

    def ready_event(self) -> dict[str, Any]:
        return {
            "event": "ready",
            "temporal": self.address,
            "ui": self.ui_url,
            "provider": self.provider_url,
            "pids": {process.name: process.pid for process in self.processes},
        }

    def start(self) -> None:
        """Start the processes and wait until they serve. Raises `StackError`."""
        for name, port in asdict(self.ports).items():
            if accepts_connections(port):
                raise StackError(
                    f"Something listens on port {port} already: choose another with --{name}-port."
                )
        self.temporal.start()
        self._write_stack_file()
        self.temporal.wait_until_ready()
        self._set_up()
        self.worker.start()
        self.provider.start()
        self._write_stack_file()
        self.worker.wait_until_ready()
        self.provider.wait_until_ready()

    def keep_alive(self) -> None:
        if any([process.keep_alive() for process in self.processes]):
            self._write_stack_file()

    def stop(self) -> None:
        """Stop the processes, the server last. Jobs at the provider go on."""
        for process in reversed(self.processes):
            process.stop()
        with contextlib.suppress(FileNotFoundError):
            (self.data_dir / STACK_FILE).unlink()

    def _write_stack_file(self) -> None:
        """Write the addresses for other commands, and the processes for the next `dev`."""
        created = {
            process.name: (process.pid, psutil.Process(process.pid).create_time())
            for process in self.processes
            if process.pid and psutil.pid_exists(process.pid)
        }
        document = self.ready_event() | {"created": created}
        new = self.data_dir / f"{STACK_FILE}.new"
        new.write_text(json.dumps(document))
        new.replace(self.data_dir / STACK_FILE)

    def _set_up(self) -> None:
        environment = stack_environment(self._worker_environment())
        backoff = Backoff(0.2, 2.0)
        # The server accepts connections a moment before it answers requests.
        for _ in range(SETUP_ATTEMPTS):
            done = subprocess.run(
                [*OUR_PYTHON, "worker", "setup"],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode == 0:
                return
            time.sleep(backoff.next_delay())
        raise StackError(
            f"The setup failed: {done.stderr.strip().splitlines()[-1] if done.stderr else ''}"
        )

    def _temporal_process(self) -> ManagedProcess:
        command = [temporal_binary(), "server", "start-dev", "--ip", "127.0.0.1"]
        command += ["--port", str(self.ports.temporal), "--ui-port", str(self.ports.ui)]
        command += ["--db-filename", str(self.data_dir / "temporal.sqlite")]
        command += [word for option in SERVER_OPTIONS for word in option]
        return ManagedProcess(
            "temporal", command, {}, self._logs, lambda _: accepts_connections(self.ports.temporal)
        )

    def _python_process(
        self, name: str, module: str, environment: dict[str, str]
    ) -> ManagedProcess:
        return ManagedProcess(
            name,
            [*OUR_PYTHON, module, "--json"],
            environment,
            self._logs,
            lambda process: bool(process.ready_event()),
        )

    def _worker_environment(self) -> dict[str, str]:
        return {
            "TEMPORAL_ADDRESS": self.address,
            "UCLOUD_CATALOG": str(self._catalog),
            "UCLOUD_DATABASE_URL": f"sqlite+aiosqlite:///{self.data_dir / 'store.sqlite'}",
            "UCLOUD_KEYS_DIR": str(self.data_dir / "keys"),
            "UCLOUD_OPERATORS": json.dumps([getpass.getuser()]),
            "UCLOUD_PROVIDER_ADDRESSES": json.dumps({PROVIDER_ID: self.provider_url}),
        }

    def _provider_environment(self) -> dict[str, str]:
        examples = self._catalog.parent / "files"
        offered = [
            ProductSupport(product=entry.reference, support=entry.support).to_wire()
            for entry in load(self._catalog).products.values()
            if entry.category.provider == PROVIDER_ID
        ]
        return {
            "TEMPORAL_ADDRESS": self.address,
            "UCLOUD_PROVIDER_ID": PROVIDER_ID,
            "UCLOUD_PROVIDER_DATA_DIR": str(self.data_dir / "provider"),
            "UCLOUD_PROVIDER_PORT": str(self.ports.provider),
            "UCLOUD_PROVIDER_PUBLIC_KEY_FILE": str(
                self.data_dir / "keys" / f"{PROVIDER_ID}.public.pem"
            ),
            "UCLOUD_PROVIDER_PRODUCTS": json.dumps(offered),
            "UCLOUD_PROVIDER_DRIVES": json.dumps(
                {"examples": str(examples)} if examples.is_dir() else {}
            ),
        }


@contextlib.contextmanager
def running_stack(data_dir: Path, catalog: Path, ports: Ports) -> Iterator[Stack]:
    """Run a stack until the end of the context, after which this process ignores stop signals.

    Processes that a killed `dev` left are stopped first. Raises `StackError`, also if another
    stack has the data directory or there is no catalog.
    """
    if not catalog.is_dir():
        raise StackError(f"There is no catalog {catalog}: name its folder with --catalog.")
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StackError(f"A stack runs in {data_dir} already.") from error
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            stop_orphans(json.loads((data_dir / STACK_FILE).read_text())["created"])
        stack = Stack(data_dir, catalog, ports)
        for number in STOP_SIGNALS:
            signal.signal(number, _interrupt)
        try:
            stack.start()
            yield stack
        finally:
            # A second signal would leave processes running; STOP_TIMEOUT bounds the stop.
            for number in STOP_SIGNALS:
                signal.signal(number, signal.SIG_IGN)
            stack.stop()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
