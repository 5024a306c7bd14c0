"""`python -m ucloud_orchestrator.provider`: serve until SIGTERM or SIGINT. Jobs outlive it."""

from __future__ import annotations

from ucloud_orchestrator.process.extras import require_extra

if __name__ == "__main__":
    require_extra("provider")

import asyncio
import json
import logging
import signal
import sys
from argparse import ArgumentParser
from types import FrameType

import uvicorn
from temporalio.runtime import Runtime

from ucloud_orchestrator.process.logging import configure_logging
from ucloud_orchestrator.process.settings import SettingsError
from ucloud_orchestrator.process.shutdown import ShutdownWatchdog, exit_process
from ucloud_orchestrator.provider.api.server import create_server
from ucloud_orchestrator.provider.errors import ComputeProviderError, MigrationError
from ucloud_orchestrator.provider.jobs.database import DATABASE_FILE, JobDatabase
from ucloud_orchestrator.provider.settings import ProviderSettings
from ucloud_orchestrator.temporal import tracing
from ucloud_orchestrator.temporal.connection import load_connection_config
from ucloud_orchestrator.temporal.connection_errors import ConnectionConfigError
from ucloud_orchestrator.temporal.runtime import make_runtime

STOP_TIMEOUT = 5
"""Seconds for open sessions and downloads to end at a shutdown."""
STOP_MARGIN = 10.0
"""Seconds after `STOP_TIMEOUT` until the process exits despite a thread that hangs."""

log = logging.getLogger("provider")


class _Server(uvicorn.Server):
    """Exits in bounded time: jobs lose nothing when the provider is killed."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._watchdog = ShutdownWatchdog(STOP_TIMEOUT + STOP_MARGIN)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._watchdog.begin()
        super().handle_exit(sig, frame)


async def migrate(settings: ProviderSettings) -> None:
    """Migrate the database. Raises `MigrationError`.

    Before the server starts: uvicorn would log an error of its start with a traceback.
    """
    database = JobDatabase(settings.data_dir / DATABASE_FILE)
    try:
        await database.open()
    finally:
        await database.close()


async def serve(settings: ProviderSettings, as_json: bool) -> None:
    config = uvicorn.Config(
        create_server(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        timeout_graceful_shutdown=STOP_TIMEOUT,
    )
    server = _Server(config)
    for number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn raises the signal again after its shutdown, before ours is complete.
        signal.signal(number, server.handle_exit)
    serving = asyncio.create_task(server.serve())
    while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.02)
    if server.started:
        url = f"http://{settings.host}:{server.servers[0].sockets[0].getsockname()[1]}"
        event = {"event": "ready", "provider": settings.id, "url": url}
        sys.stdout.write(
            (json.dumps(event) if as_json else f"The provider {settings.id} serves at {url}.")
            + "\n"
        )
        sys.stdout.flush()
    await serving


def main() -> int:
    parser = ArgumentParser(
        prog="provider", description="Serve the provider protocol and run jobs."
    )
    parser.add_argument(
        "--json", action="store_true", help="print the ready event as one line of JSON"
    )
    chosen = parser.parse_args()
    try:
        settings = ProviderSettings.read()
        # It connects at the first report: a mistake must be found before.
        load_connection_config()
    except (SettingsError, ConnectionConfigError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure_logging(settings.log_level, settings.log_format)
    Runtime.set_default(make_runtime())
    try:
        tracing.start("ucloud-provider")
        asyncio.run(migrate(settings))
        asyncio.run(serve(settings, chosen.json))
    except MigrationError as error:
        log.error("%s", error)
        return 2
    except (OSError, ValueError, ComputeProviderError, tracing.TracingUnavailable) as error:
        log.error("%s", error)
        return 3
    finally:
        tracing.stop()
    return 0


if __name__ == "__main__":
    exit_process(main())
