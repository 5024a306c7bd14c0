"""The provider's own pages: a terminal and a desktop in the browser."""

from __future__ import annotations

import json
from pathlib import Path

from fastapi.responses import HTMLResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC = Path(__file__).parent / "static"
HEADERS = {
    "cache-control": "no-store",
    # The libraries set styles by script.
    "content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def terminal_page() -> HTMLResponse:
    return HTMLResponse((STATIC / "terminal.html").read_text(), headers=HEADERS)


def desktop_page(password: str | None) -> HTMLResponse:
    """Return a desktop, which opens the session of the page's query with VNC's password."""
    credentials = json.dumps({} if password is None else {"password": password}).replace(
        "<", "\\u003c"
    )
    page = (STATIC / "desktop.html").read_text().replace("{}", credentials, 1)
    return HTMLResponse(page, headers=HEADERS)


class Assets(StaticFiles):
    def __init__(self) -> None:
        super().__init__(directory=STATIC)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file; modules have the type that browsers need, on every machine."""
        response = await super().get_response(path, scope)
        if path.endswith(".mjs"):
            response.headers["content-type"] = "text/javascript; charset=utf-8"
        response.headers["cache-control"] = "no-cache"
        response.headers["x-content-type-options"] = "nosniff"
        return response
