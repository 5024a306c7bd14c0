"""Forward a Unix socket to a port inside a job's network namespace.

`python port_forwarder.py SOCKET HOLDER PORT` runs in that namespace, on the standard library alone.
It exits when the process HOLDER, which holds the namespace, has exited.
"""

import asyncio
import contextlib
import os
import sys
from pathlib import Path

CHUNK_SIZE = 64 * 1024
HOSTS = ("127.0.0.1", "::1")
"""Programs that listen on every address listen on these too."""


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Forward one connection; it is closed at once if nothing listens on the port."""
    for host in HOSTS:
        with contextlib.suppress(OSError):
            inner_reader, inner_writer = await asyncio.open_connection(host, port)
            break
    else:
        writer.close()
        return
    try:
        await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))
    finally:
        for end in (writer, inner_writer):
            end.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction with backpressure; the other may continue after its end (half-close)."""
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK_SIZE):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
        return
    writer.close()  # one side broke: the other must not wait for it


async def serve(socket: str, holder: int, port: int) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(os.pidfd_open(holder), ended.set)
    # Renamed once it listens: a socket under its final name accepts connections.
    server = await asyncio.start_unix_server(lambda r, w: forward(r, w, port), f"{socket}.new")
    os.rename(f"{socket}.new", socket)
    async with server:
        await ended.wait()


if __name__ == "__main__":
    with contextlib.suppress(OSError):
        Path(f"{sys.argv[1]}.pid").write_text(str(os.getpid()))
        asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
    # The job has ended. The provider may not run, so this process removes its own files.
    for file in (f"{sys.argv[1]}.pid", sys.argv[1]):
        Path(file).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty: other ports of the job are forwarded
        Path(sys.argv[1]).parent.rmdir()
