"""The bodies of requests: how much of one is read, how it becomes JSON, and what is answered if it
is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.exceptions import HTTPException as AnyHTTPException

from ucloud_orchestrator.models.base import ApiModel, field_path
from ucloud_orchestrator.models.errors import MAXIMUM_SENTENCE, truncate
from ucloud_orchestrator.models.provider_api import ProviderError, job_ids
from ucloud_orchestrator.provider.errors import InvalidJobId
from ucloud_orchestrator.temporal.names import is_job_id

MAXIMUM_MISTAKES = 20
"""How many of a body's mistakes are told."""
_REASONS: dict[int | str, str] = {
    400: "Refused for good.",
    401: "The request is not signed by the orchestrator.",
    404: "The job is not known, or does not run.",
    409: "The job was terminated before it was created.",
    413: "The body is larger than `maximum_request_bytes`.",
    "4XX": "Refused for good.",
    503: "To be tried again: what runs the jobs does not answer.",
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProviderError, "description": reason} for status, reason in _REASONS.items()
}
"""What every call may answer beside its 200, for the OpenAPI document."""


def bounded_route(maximum: int) -> type[APIRoute]:
    """Routes that read at most that many bytes of a body."""

    class BoundedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def bounded(request: Request) -> Response:
                return await handle(_BoundedRequest(request, maximum))

            return bounded

    return BoundedRoute


class _BoundedRequest(Request):
    def __init__(self, request: Request, maximum: int) -> None:
        super().__init__(request.scope, request.receive)
        self._maximum = maximum

    async def body(self) -> bytes:
        """Raises `HTTPException` 413 before more than the maximum is held."""
        if not hasattr(self, "_body"):
            length = self.headers.get("content-length", "")
            self._check(int(length) if length.isdecimal() and len(length) < 20 else 0)
            pieces, size = [], 0
            async for piece in self.stream():
                size += len(piece)
                self._check(size)
                pieces.append(piece)
            self._body = b"".join(pieces)
        return self._body

    async def json(self) -> Any:
        """Raises `HTTPException` 400.

        Python's own reader has no bound for nesting but the stack's, and takes halves of characters
        that no database and no file name can hold; pydantic's refuses both.
        """
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise HTTPException(400, f"The body is no JSON that can be read: {error}.") from error

    def _check(self, size: int) -> None:
        if size > self._maximum:
            raise HTTPException(413, f"The body may have {self._maximum} bytes at most.")


def ids_in(items: Sequence[ApiModel]) -> list[str]:
    """The ids of the jobs that a request is about. Raises `InvalidJobId`."""
    ids = job_ids(items)
    for job_id in ids:
        if not is_job_id(job_id):
            raise InvalidJobId(f"{truncate(ascii(job_id), 100)} is no id of a job.")
    return ids


async def on_http(_: Request, error: Exception) -> JSONResponse:
    """What the framework itself refuses, such as an unknown path, in the form of all refusals."""
    assert isinstance(error, AnyHTTPException)
    return JSONResponse({"why": error.detail}, error.status_code, headers=error.headers)


async def on_bad_id(_: Request, error: Exception) -> JSONResponse:
    """400."""
    return JSONResponse({"why": str(error)}, 400)


async def on_invalid(_: Request, error: Exception) -> JSONResponse:
    """400, with the first of the body's mistakes."""
    assert isinstance(error, RequestValidationError)
    mistakes = [
        truncate(
            f"{field_path(detail['loc'][1:]) or 'the body'}: {detail['msg']}", MAXIMUM_SENTENCE
        )
        for detail in error.errors()[:MAXIMUM_MISTAKES]
    ]
    return JSONResponse({"why": "; ".join(mistakes) + "."}, 400)
