"""Proxies between two processes: they cut and slow connections, and lose or spoil answers."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ucloud_orchestrator.process.http import serve_http

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
CHUNK = 64 * 1024


class Link:
    """A TCP proxy; `delay` are the seconds that each chunk waits."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._open: set[asyncio.StreamWriter] = set()
        self._is_cut = False
        self.delay = 0.0
        self.port = 0

    @classmethod
    def to_port(cls, port: int) -> Link:
        """Return a link to a port of the loopback."""
        return cls(lambda: asyncio.open_connection("127.0.0.1", port))

    @classmethod
    def to_socket(cls, path: str) -> Link:
        """Return a link to a Unix socket."""
        return cls(lambda: asyncio.open_unix_connection(path))

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Link]:
        """Accept connections on a free port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()

    def cut(self) -> None:
        """Abort every connection, and reject new ones until `repair`."""
        self._is_cut = True
        for writer in list(self._open):
            writer.transport.abort()

    def repair(self) -> None:
        """Accept connections again, without a delay."""
        self._is_cut = False
        self.delay = 0.0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        self._open.add(writer)
        try:
            far_reader, far_writer = await self._connect()
        except OSError:
            writer.transport.abort()
            self._open.discard(writer)
            return
        self._open.add(far_writer)
        pumps = [
            asyncio.create_task(self._pump(reader, far_writer)),
            asyncio.create_task(self._pump(far_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps)
        finally:
            for one in (writer, far_writer):
                self._open.discard(one)
                one.close()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(CHUNK):
                if self.delay:
                    await asyncio.sleep(self.delay)
                target.write(chunk)
                await target.drain()
        with contextlib.suppress(OSError):
            target.close()


class FaultyAnswers:
    """An HTTP proxy between the worker and the provider.

    While `is_faulty`, it draws the fault of each request.
    """

    KINDS = ("lost", "repeated", "late", "broken", "rejected by a gateway")

    def __init__(self, target: str, seed: int) -> None:
        self._client = httpx.AsyncClient(base_url=target, timeout=30)
        self._chance = random.Random(seed)
        self.is_faulty = False
        self.port = 0
        self.counts = dict.fromkeys(self.KINDS, 0)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[FaultyAnswers]:
        """Answer requests on a free port."""
        route = Route("/{path:path}", self._answer, methods=["GET", "POST"])
        async with serve_http("127.0.0.1", 0, [route]) as self.port:
            yield self
        await self._client.aclose()

    async def _answer(self, request: Request) -> Response:
        kind = self._chance.choice((*self.KINDS, "")) if self.is_faulty else ""
        if kind:
            self.counts[kind] += 1
        if kind == "rejected by a gateway":
            return Response("<html>Bad gateway</html>", 502, media_type="text/html")
        body = await request.body()
        if kind == "late":  # others overtake it
            await asyncio.sleep(self._chance.uniform(0.2, 2.0))
        if kind == "repeated":
            await self._forward(request, body)
        answer = await self._forward(request, body)
        if kind == "lost":
            return Response(None, 504)
        if kind == "broken" and answer.status_code == 200:
            return Response(bytes(answer.body)[:20] + b"\x00", 200, media_type="application/json")
        return answer

    async def _forward(self, request: Request, body: bytes) -> Response:
        headers = {
            name: request.headers[name]
            for name in ("authorization", "content-type")
            if name in request.headers
        }
        try:
            answer = await self._client.request(
                request.method, request.url.path, content=body, headers=headers
            )
        except httpx.HTTPError:
            return Response("The provider cannot be reached.", 503)
        return Response(
            answer.content, answer.status_code, media_type=answer.headers.get("content-type")
        )
