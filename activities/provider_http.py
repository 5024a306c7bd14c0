"""The HTTP client of one provider: pooled connections, signed requests, and mapped errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import ValidationError
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.errors import rejection
from activities.metrics import count
from ucloud_orchestrator.models.base import ApiModel, error_messages
from ucloud_orchestrator.models.errors import ErrorCode, truncate
from ucloud_orchestrator.models.job import Job
from ucloud_orchestrator.models.provider_api import (
    BulkResponse,
    CreateResponse,
    ProductsResponse,
    ProviderError,
    job_ids,
)
from ucloud_orchestrator.models.session import OpenSession, SessionItem
from ucloud_orchestrator.temporal import tracing

TIMEOUT = httpx.Timeout(30.0, connect=5.0)
"""Seconds. A provider may have to query its scheduler before it answers."""
TOKEN_LIFETIME = 300
"""Seconds. UCloud's own tokens live for minutes, too."""
SUBJECT = "_UCloud"
ROLE = "SERVICE"
MAXIMUM_ANSWER = 1024 * 1024
"""Bytes. A larger answer is ignored: it would become a Temporal message."""
RETRIED_STATUS = frozenset({408, 429})


class ProviderHttp:
    """The HTTP calls to one provider, signed with that provider's own private key (PEM, RSA).

    Raises `ValueError` for an invalid key.
    """

    def __init__(
        self,
        provider: str,
        address: str,
        private_key: str,
        issuer: str = "cloud.sdu.dk",
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._provider = provider
        # Parsed once: parsing checks the key, which takes fifty times as long as a signature.
        self._private_key = _rsa_key(private_key)
        self._issuer = issuer
        self._client = httpx.AsyncClient(
            base_url=f"{address.rstrip('/')}/ucloud/{provider}/jobs",
            timeout=TIMEOUT,
            transport=transport,
        )

    async def create(self, *jobs: Job) -> list[CreateResponse]:
        """Submit jobs: all or none.

        A 2xx with an invalid body, such as `null`, is an acknowledgement without details.
        """
        answer = await self.post("/", *jobs)
        try:
            responses = BulkResponse[CreateResponse | None].model_validate(answer).responses
        except ValidationError:
            responses = []
        results = [response or CreateResponse() for response in responses[: len(jobs)]]
        return results + [CreateResponse()] * (len(jobs) - len(results))

    async def open_session(self, item: SessionItem) -> OpenSession:
        """Open a session. Raises as `post`, and `PROVIDER_REJECTED` for an invalid answer."""
        answer = await self.post("/interactiveSession", item)
        try:
            responses = BulkResponse[OpenSession].model_validate(answer).responses
        except ValidationError:
            responses = []
        if not responses:
            text = f"The provider {self._provider} gave no session that can be used."
            raise rejection(ErrorCode.PROVIDER_REJECTED, text)
        return responses[0]

    async def products(self) -> ProductsResponse:
        """Return the provider's products.

        Raises as `post`, and `PROVIDER_REJECTED` for an invalid answer.
        """
        answer = await self._send("GET", "/retrieveProducts")
        try:
            return ProductsResponse.model_validate(answer)
        except ValidationError as error:
            text = (
                f"The provider {self._provider} returned no valid list of products: "
                f"{' '.join(error_messages(error, answer))}"
            )
            raise rejection(ErrorCode.PROVIDER_REJECTED, text) from error

    async def post(self, path: str, *items: ApiModel) -> Any:
        """Send a call with its items, and return the JSON of the answer.

        Raises a non-retryable `ApplicationError` of type `PROVIDER_REJECTED` for a 4xx other than
        408 and 429. Raises a retryable `PROVIDER_UNREACHABLE` for anything else but a 2xx.
        """
        return await self._send(
            "POST", path, {"items": [item.to_wire() for item in items]}, job_ids(items)
        )

    async def _send(self, method: str, path: str, body: Any = None, ids: Sequence[str] = ()) -> Any:
        headers = self._headers()
        try:
            with tracing.client_span(f"{method} {path}", headers, ids):
                response = await self._client.request(method, path, json=body, headers=headers)
                tracing.set_status(response.status_code)
        except (httpx.HTTPError, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and (
                activity.is_cancelled() or activity.is_worker_shutdown()
            ):
                raise
            # anyio cancels its own attempts to connect, and such a cancel may leak out of it.
            self._count("unreachable")
            raise _unreachable(
                f"The provider {self._provider} cannot be reached at {self._client.base_url}: "
                f"{type(error).__name__}{f' ({error})' if str(error) else ''}."
            ) from error
        if response.is_success:
            return _json(response)
        reason = _reason(response)
        self._count(str(response.status_code))
        if response.is_client_error and response.status_code not in RETRIED_STATUS:
            raise rejection(
                ErrorCode.PROVIDER_REJECTED, f"The provider {self._provider} refused: {reason}"
            )
        raise _unreachable(
            f"The provider {self._provider} answered {response.status_code}: {reason}"
        )

    def _count(self, kind: str) -> None:
        count(
            "ucloud_provider_errors",
            "Calls that a provider did not accept, by status.",
            provider=self._provider,
            kind=kind,
        )

    async def close(self) -> None:
        await self._client.aclose()

    def _headers(self) -> dict[str, str]:
        now = int(time.time())
        claims = {
            "iss": self._issuer,
            "sub": SUBJECT,
            "role": ROLE,
            "iat": now,
            "exp": now + TOKEN_LIFETIME,
        }
        return {
            "Authorization": f"Bearer {jwt.encode(claims, self._private_key, algorithm='RS256')}"
        }


def _rsa_key(pem: str) -> RSAPrivateKey:
    key = load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("it is not an RSA key")
    return key


def _unreachable(message: str) -> ApplicationError:
    return ApplicationError(message, type="PROVIDER_UNREACHABLE")


def _json(response: httpx.Response) -> Any:
    if len(response.content) > MAXIMUM_ANSWER:
        return None
    try:
        return response.json()
    except ValueError:
        return None


def _reason(response: httpx.Response) -> str:
    try:
        return truncate(ProviderError.model_validate_json(response.content).why)
    except ValidationError:
        return response.text[:200] or response.reason_phrase
