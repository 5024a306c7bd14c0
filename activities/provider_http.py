"""HTTP to one provider: one pooled client, signed requests, and what each answer means."""

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

from activities.errors import refusal
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
"""Seconds.

A provider may have to ask its scheduler before it answers; a connection comes at once or not at
all.
"""
TOKEN_LIFETIME = 300
"""Seconds that a token is good for; minutes, as UCloud's own."""
SUBJECT = "_UCloud"
ROLE = "SERVICE"
MAXIMUM_ANSWER = 1024 * 1024
"""Bytes of an answer that is read: it becomes a Temporal message, and there is nothing in it that
must be known.
"""
RETRIED_STATUS = frozenset({408, 429})


class ProviderHttp:
    """The HTTP calls to one provider, signed with that provider's own private key (PEM, RSA).

    Raises `ValueError` for a key that cannot be used.
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
        # Read once: reading checks the whole key, which takes fifty times as long as a signature
        # with it.
        self._private_key = _rsa_key(private_key)
        self._issuer = issuer
        self._client = httpx.AsyncClient(
            base_url=f"{address.rstrip('/')}/ucloud/{provider}/jobs",
            timeout=TIMEOUT,
            transport=transport,
        )

    async def create(self, *jobs: Job) -> list[CreateResponse]:
        """Submit jobs: all or none.

        An answer that cannot be read, such as `null`, says only that they were taken.
        """
        answer = await self.post("/", *jobs)
        try:
            responses = BulkResponse[CreateResponse | None].model_validate(answer).responses
        except ValidationError:
            responses = []
        known = [response or CreateResponse() for response in responses[: len(jobs)]]
        return known + [CreateResponse()] * (len(jobs) - len(known))

    async def open_session(self, item: SessionItem) -> OpenSession:
        """Ask for a session.

        Raises as `post` does, and `PROVIDER_REJECTED` for an answer that is no session.
        """
        answer = await self.post("/interactiveSession", item)
        try:
            responses = BulkResponse[OpenSession].model_validate(answer).responses
        except ValidationError:
            responses = []
        if not responses:
            text = f"The provider {self._provider} gave no session that can be used."
            raise refusal(ErrorCode.PROVIDER_REJECTED, text)
        return responses[0]

    async def products(self) -> ProductsResponse:
        """What the provider offers.

        Raises as `post` does, and `PROVIDER_REJECTED` for an answer that says nothing.
        """
        answer = await self._send("GET", "/retrieveProducts")
        try:
            return ProductsResponse.model_validate(answer)
        except ValidationError as error:
            text = (
                f"The provider {self._provider} did not say what it offers: "
                f"{' '.join(error_messages(error, answer))}"
            )
            raise refusal(ErrorCode.PROVIDER_REJECTED, text) from error

    async def post(self, path: str, *items: ApiModel) -> Any:
        """Send a call with its items; returns the JSON of the answer.

        Raises an `ApplicationError` of type `PROVIDER_REJECTED`, not to be tried again, for a 4xx other than 408 and
        429; and one that is to be tried again for everything else that is not a 2xx, or no answer at all.
        """
        return await self._send(
            "POST", path, {"items": [item.to_wire() for item in items]}, job_ids(items)
        )

    async def _send(
        self, method: str, path: str, body: Any = None, about: Sequence[str] = ()
    ) -> Any:
        headers = self._headers()
        try:
            with tracing.client_span(f"{method} {path}", headers, about):
                response = await self._client.request(method, path, json=body, headers=headers)
                tracing.set_status(response.status_code)
        except (httpx.HTTPError, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and (
                activity.is_cancelled() or activity.is_worker_shutdown()
            ):
                raise
            # A cancel that nobody asked for is that of anyio's attempts to connect, which may get
            # out of them.
            self._count("unreachable")
            raise _try_again(
                f"The provider {self._provider} cannot be reached at {self._client.base_url}: "
                f"{type(error).__name__}{f' ({error})' if str(error) else ''}."
            ) from error
        if response.is_success:
            return _json(response)
        why = _why(response)
        self._count(str(response.status_code))
        if response.is_client_error and response.status_code not in RETRIED_STATUS:
            raise refusal(
                ErrorCode.PROVIDER_REJECTED, f"The provider {self._provider} refused: {why}"
            )
        raise _try_again(f"The provider {self._provider} answered {response.status_code}: {why}")

    def _count(self, kind: str) -> None:
        count(
            "ucloud_provider_errors",
            "Calls that a provider did not accept.",
            provider=self._provider,
            kind=kind,
        )

    async def close(self) -> None:
        """Close the pooled connections."""
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
        raise ValueError("it is no RSA key")
    return key


def _try_again(message: str) -> ApplicationError:
    return ApplicationError(message, type="PROVIDER_UNREACHABLE")


def _json(response: httpx.Response) -> Any:
    if len(response.content) > MAXIMUM_ANSWER:
        return None
    try:
        return response.json()
    except ValueError:
        return None


def _why(response: httpx.Response) -> str:
    try:
        return truncate(ProviderError.model_validate_json(response.content).why)
    except ValidationError:
        return response.text[:200] or response.reason_phrase
