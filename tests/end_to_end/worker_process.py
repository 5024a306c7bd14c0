"""Run the worker as a real process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.conftest import TEST_CATALOG
from ucloud_orchestrator.setup import make_keys
from ucloud_orchestrator.store import connect, upgrade

ROOT = Path(__file__).parent.parent.parent


class WorkerProcess:
    """A worker in a folder of its own; `module` is what `python -m` runs, `more` are settings."""

    def __init__(
        self,
        folder: Path,
        temporal: str,
        addresses: dict[str, str],
        module: str = "worker",
        **more: str,
    ) -> None:
        self.database = folder / "store.sqlite"
        self.log = folder / "worker.log"
        self._module = module
        self.settings = {
            "TEMPORAL_ADDRESS": temporal,
            "UCLOUD_CATALOG": str(TEST_CATALOG),
            "UCLOUD_DATABASE_URL": f"sqlite+aiosqlite:///{self.database}",
            "UCLOUD_KEYS_DIR": str(folder / "keys"),
            "UCLOUD_PROVIDER_ADDRESSES": json.dumps(addresses),
            "UCLOUD_LOG_LEVEL": "INFO",
        } | more

    @property
    def is_running(self) -> bool:
        """Whether the process runs."""
        return hasattr(self, "process") and self.process.returncode is None

    async def setup(self) -> None:
        """Run `setup`."""
        process = await self._run("setup")
        assert await process.wait() == 0, self.log.read_text()

    async def start(self) -> None:
        """Start the process, and wait until it serves."""
        self.process = await self._run()
        assert self.process.stdout is not None
        assert json.loads(await self.process.stdout.readline())["event"] == "ready", (
            self.log.read_text()
        )

    async def _run(self, *arguments: str) -> asyncio.subprocess.Process:
        command = (sys.executable, "-m", self._module, "--json", *arguments)
        with self.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *command,
                env=os.environ | self.settings,
                cwd=ROOT,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )

    def suspend(self) -> None:
        """Stop the process with SIGSTOP: it hangs."""
        self.process.send_signal(signal.SIGSTOP)

    async def kill(self) -> None:
        """Kill the process."""
        if self.is_running:
            self.process.kill()
            await self.process.wait()

    async def terminate(self, timeout: float = 40.0) -> float:
        """Send SIGTERM, wait for exit code 0, and return the seconds that it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(self.process.wait(), timeout)
        assert code == 0, self.log.read_text()
        return time.monotonic() - began


async def prepare(folder: Path) -> None:
    """Create the tables and the keys."""
    for served in ("local", "second"):
        make_keys(folder / "keys", served)
    engine = connect(f"sqlite+aiosqlite:///{folder / 'store.sqlite'}")
    await upgrade(engine)
    await engine.dispose()


@asynccontextmanager
async def serving(worker: WorkerProcess) -> AsyncIterator[WorkerProcess]:
    """Run the worker, and kill it at the end."""
    await worker.start()
    try:
        yield worker
    finally:
        await worker.kill()
