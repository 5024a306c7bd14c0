"""A web application for jobs: it describes each request, and streams both ways.

`web_job` runs it inside a job, so it imports nothing of the tests.
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


async def describe(request: Request) -> Response:
    """Return the request as JSON."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
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
    """Redirect to an absolute path, as applications do that ignore a prefix."""
    return RedirectResponse("/there?x=1")


async def endless(_: Request) -> Response:
    """Stream without an end; the file `left` is made when the browser leaves."""

    async def chunks() -> Any:
        try:
            while True:
                yield b"x" * 65536
                await asyncio.sleep(0)
        finally:
            os.mknod("left")

    return StreamingResponse(chunks())


async def broken(_: Request) -> Response:
    """Stream a response that breaks off."""

    async def chunks() -> Any:
        yield b"begun"
        raise RuntimeError("broken")

    return StreamingResponse(chunks())


async def echo(socket: WebSocket) -> None:
    """Echo each message; `close` closes with code 4001."""
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
                await socket.close(4001, "on request")
                return
            if message.get("text") is not None:
                await socket.send_text(message["text"])
            else:
                await socket.send_bytes(message["bytes"])
    except WebSocketDisconnect:
        pass


async def reject(socket: WebSocket) -> None:
    """Reject the WebSocket."""
    await socket.send_denial_response(Response("not here", 418))


application = Starlette(
    routes=[
        Route("/redirect", redirect),
        Route("/endless", endless),
        Route("/broken", broken),
        WebSocketRoute("/echo", echo),
        WebSocketRoute("/rejected", reject),
        Route("/{path:path}", describe, methods=METHODS),
    ]
)

if __name__ == "__main__":
    uvicorn.run(application, host=sys.argv[1], port=int(sys.argv[2]), log_level="error")
