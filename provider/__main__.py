"""`python -m provider`: serve until SIGTERM or SIGINT. Jobs go on meanwhile, and are found again at the next start."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys

import uvicorn

from provider.server import create_server
from provider.settings import ProviderSettings

log = logging.getLogger("provider")


async def serve(settings: ProviderSettings) -> None:
    """Serve, and say on standard output where."""
    config = uvicorn.Config(create_server(settings), host=settings.host, port=settings.port, log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.02)
    if server.started:
        port = server.servers[0].sockets[0].getsockname()[1]
        sys.stdout.write(json.dumps({"event": "ready", "url": f"http://{settings.host}:{port}"}) + "\n")
        sys.stdout.flush()
    await serving


def main() -> int:
    """Run the provider; returns the exit code."""
    settings = ProviderSettings()
    logging.basicConfig(
        level=settings.log_level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    try:
        asyncio.run(serve(settings))
    except (OSError, ValueError) as error:
        log.error("%s", error)
        return 3
    return 0


if __name__ == "__main__":
    code = main()
    # The Temporal SDK may abort while the interpreter shuts down (sdk-python issue 300), so it never gets there.
    sys.stdout.flush()
    logging.shutdown()
    os._exit(code)
