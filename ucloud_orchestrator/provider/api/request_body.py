"""Request bodies: their bound, their JSON, and the answers to wrong ones."""

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
"""Of one body, in the answer."""
_REASONS: dict[int | str, str] = {
    400: "Rejected for good.",
    401: "The request is not signed by the orchestrator.",
    404: "The job is not known, or does not run.",
    409: "The job was terminated before it was created.",
    413: "The body is larger than `maximum_request_bytes`.",
    "4XX": "Rejected for good.",
    503: "Try again: what runs the jobs does not answer.",
}
REJECTIONS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProviderError, "description": reason} for status, reason in _REASONS.items()
}
"""The error answers of every call, for the OpenAPI document."""


def bounded_route(maximum: int) -> type[APIRoute]:
    """Return a route class that reads at most `maximum` bytes of a body."""

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
        """Raises `HTTPException` 413 before more than the maximum is in memory."""
        if not hasattr(self, "_body"):
            length = self.headers.get("content-length", "")
            self._check(int(length) if length.isdecimal() and len(length) < 20 else 0)
            chunks, size = [], 0
            async for chunk in self.stream():
                size += len(chunk)
                self._check(size)
                chunks.append(chunk)
            self._body = b"".join(chunks)
        return self._body

    async def json(self) -> Any:
        """Raises `HTTPException` 400.

        Python's own reader bounds nesting only by the stack, and accepts lone surrogates, which no
        database and no file name can hold. pydantic's rejects both.
        """
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise HTTPException(400, f"The body is not readable JSON: {error}.") from error

    def _check(self, size: int) -> None:
        if size > self._maximum:
            raise HTTPException(413, f"The body may have {self._maximum} bytes at most.")


def ids_in(items: Sequence[ApiModel]) -> list[str]:
    """Return the ids of the jobs of a request. Raises `InvalidJobId`."""
    ids = job_ids(items)
    for job_id in ids:
        if not is_job_id(job_id):
            raise InvalidJobId(f"{truncate(ascii(job_id), 100)} is not the id of a job.")
    return ids


async def on_http(_: Request, error: Exception) -> JSONResponse:
    """Answer what the framework rejects, such as an unknown path, in the form of all rejections."""
    assert isinstance(error, AnyHTTPException)
    return JSONResponse({"why": error.detail}, error.status_code, headers=error.headers)


async def on_invalid_id(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"why": str(error)}, 400)


async def on_invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    mistakes = [
        truncate(
            f"{field_path(detail['loc'][1:]) or 'the body'}: {detail['msg']}", MAXIMUM_SENTENCE
        )
        for detail in error.errors()[:MAXIMUM_MISTAKES]
    ]
    return JSONResponse({"why": "; ".join(mistakes) + "."}, 400)
