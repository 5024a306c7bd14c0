"""`python forwarder.py SOCKET HOLDER PORT`: inside a job's network, from a Unix socket to a port of
the job.

Ends when the process HOLDER, which holds the network, has ended. Runs from the standard library
alone.
"""

import asyncio
import contextlib
import os
import sys
from pathlib import Path

CHUNK_SIZE = 64 * 1024
"""Bytes that are passed on at a time."""
HOSTS = ("127.0.0.1", "::1")
"""Where programs listen that listen on this machine only; those that listen everywhere listen there
too.
"""


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Pass one connection on; it is closed at once if nothing listens on the port."""
    for host in HOSTS:
        with contextlib.suppress(OSError):
            inner_reader, inner_writer = await asyncio.open_connection(host, port)
            break
    else:
        writer.close()
        return
    ways = [_pump(reader, inner_writer), _pump(inner_reader, writer)]
    try:
        await asyncio.gather(*ways)
    finally:
        for end in (writer, inner_writer):
            end.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction, at the pace of the slower side; the other direction may go on after its
    end.
    """
    with contextlib.suppress(OSError):
        while piece := await reader.read(CHUNK_SIZE):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
        return
    writer.close()  # one side broke: the other must not wait for it


async def serve(socket: str, holder: int, port: int) -> None:
    """Forward until the holder has ended."""
    ended = asyncio.Event()
    watched = os.pidfd_open(holder)
    asyncio.get_running_loop().add_reader(watched, ended.set)
    # It appears under its name only when it listens.
    server = await asyncio.start_unix_server(lambda r, w: forward(r, w, port), f"{socket}.new")
    os.rename(f"{socket}.new", socket)
    async with server:
        await ended.wait()


if __name__ == "__main__":
    with contextlib.suppress(OSError):
        Path(f"{sys.argv[1]}.pid").write_text(str(os.getpid()))
        asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
    # The job has ended: nothing is left, also if the provider is not there to tidy up.
    for left in (f"{sys.argv[1]}.pid", sys.argv[1]):
        Path(left).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # others forward to the job too
        Path(sys.argv[1]).parent.rmdir()
