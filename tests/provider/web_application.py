"""A web application for jobs: it tells what it was sent, and streams both ways.

Run inside a job by `web_job`, so it imports nothing of the tests.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


async def told(request: Request) -> Response:
    """What came in."""
    size = 0
    async for piece in request.stream():
        size += len(piece)
    response = JSONResponse(
        {
            "method": request.method,
            "target": (request.scope["raw_path"] + b"?" + request.scope["query_string"]).decode(),
            "headers": [[name.decode(), value.decode()] for name, value in request.headers.raw],
            "size": size,
            "job": os.environ.get("UCLOUD_JOB_ID"),
            "rank": os.environ.get("UCLOUD_RANK"),
        }
    )
    response.set_cookie("flavour", "vanilla", domain="example.com")
    response.set_cookie("ucloud-session", "stolen")
    response.headers["keep-alive"] = "timeout=5"
    return response


async def redirect(_: Request) -> Response:
    """To an absolute path, as applications do that know of no prefix."""
    return RedirectResponse("/there?x=1")


async def endless(_: Request) -> Response:
    """Pieces without an end; that the browser left is told in the file `left`."""

    async def pieces() -> Any:
        try:
            while True:
                yield b"x" * 65536
                await asyncio.sleep(0)
        finally:
            os.mknod("left")

    return StreamingResponse(pieces())


async def broken(_: Request) -> Response:
    """An answer that breaks off."""

    async def pieces() -> Any:
        yield b"begun"
        raise RuntimeError("broken")

    return StreamingResponse(pieces())


async def echo(socket: WebSocket) -> None:
    """The same message again; `close` closes with a code of its own."""
    offered = socket.scope.get("subprotocols", ())
    await socket.accept("chat" if "chat" in offered else None)
    await socket.send_json(
        {"cookie": socket.headers.get("cookie"), "origin": socket.headers.get("origin")}
    )
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") == "close":
                await socket.close(4001, "as you wish")
                return
            if message.get("text") is not None:
                await socket.send_text(message["text"])
            else:
                await socket.send_bytes(message["bytes"])
    except WebSocketDisconnect:
        pass


async def refused(socket: WebSocket) -> None:
    """No WebSocket."""
    await socket.send_denial_response(Response("not here", 418))


application = Starlette(
    routes=[
        Route("/redirect", redirect),
        Route("/endless", endless),
        Route("/broken", broken),
        WebSocketRoute("/echo", echo),
        WebSocketRoute("/refused", refused),
        Route("/{path:path}", told, methods=METHODS),
    ]
)

if __name__ == "__main__":
    uvicorn.run(application, host=sys.argv[1], port=int(sys.argv[2]), log_level="error")
