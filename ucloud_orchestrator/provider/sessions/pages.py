"""The provider's own pages: a terminal and a desktop in the browser, made of files that come with
this package.
"""

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
    # The libraries set styles by script; all else comes from this provider, and no other page shows
    # it in a frame.
    "content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src "
    "'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def terminal_page() -> HTMLResponse:
    """A terminal that opens the session of the page's own query."""
    return HTMLResponse((STATIC / "terminal.html").read_text(), headers=HEADERS)


def desktop_page(password: str | None) -> HTMLResponse:
    """A desktop that opens the session of the page's own query, with VNC's own password."""
    credentials = json.dumps({} if password is None else {"password": password}).replace(
        "<", "\\u003c"
    )
    page = (STATIC / "desktop.html").read_text().replace("{}", credentials, 1)
    return HTMLResponse(page, headers=HEADERS)


class Assets(StaticFiles):
    """The scripts and styles of the pages; nothing in them is a secret."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, as the type that a browser needs to run it, whatever this machine thinks of its
        ending.
        """
        response = await super().get_response(path, scope)
        if path.endswith(".mjs"):
            response.headers["content-type"] = "text/javascript; charset=utf-8"
        response.headers["cache-control"] = "no-cache"
        response.headers["x-content-type-options"] = "nosniff"
        return response
