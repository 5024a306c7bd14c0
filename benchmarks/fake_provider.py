"""A fake provider, which acknowledges each call over HTTP and does nothing.

`python -m benchmarks.fake_provider PORT PUBLIC_KEY_FILE`
"""

from __future__ import annotations

import sys
from pathlib import Path

import jwt
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


def application(public_key: str) -> Starlette:
    """Return the application: it checks the token, and answers each item with an empty object."""

    async def acknowledge(request: Request) -> JSONResponse:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        try:
            jwt.decode(token, public_key, ["RS256"], issuer="cloud.sdu.dk")
        except jwt.InvalidTokenError as error:
            return JSONResponse({"why": str(error)}, 401)
        items = (await request.json())["items"]
        if request.path_params["call"]:
            return JSONResponse({"responses": [{} for _ in items]})
        return JSONResponse({"responses": [{"id": item["id"]} for item in items]})

    return Starlette(
        routes=[Route("/ucloud/{provider}/jobs/{call:path}", acknowledge, methods=["POST"])]
    )


if __name__ == "__main__":
    uvicorn.run(
        application(Path(sys.argv[2]).read_text()),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="error",
    )
