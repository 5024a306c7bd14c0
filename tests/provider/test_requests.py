"""Authentication of requests, and rejections of invalid ones."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import InvalidStatus

from tests.provider.provider_process import Served


async def test_follow_needs_a_token(provider: Served) -> None:
    url = f"{provider.url.replace('http', 'ws')}/ucloud/local/jobs/follow"
    with pytest.raises(InvalidStatus):
        async with connect_websocket(url):
            pass


OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
NOW = int(time.time())


@pytest.mark.parametrize(
    "changes",
    [
        {"key": OTHER_KEY},
        {"algorithm": "HS256", "key": "x" * 64},
        {"algorithm": "none", "key": ""},
        {"iss": "another.issuer"},
        {"sub": "alice"},
        {"role": "USER"},
        {"role": None},
        {"iss": None},
        {"sub": None},
        {"iat": None},
        {"exp": None},
        {"exp": NOW - 120},
        {"iat": NOW + 3600, "exp": NOW + 7200},
    ],
    ids=" ".join,
)
async def test_an_invalid_token_is_rejected(provider: Served, changes: dict[str, Any]) -> None:
    answer = await provider.call("retrieveProducts", token=provider.token(**changes))
    assert answer.status_code == 401
    assert answer.json()["why"]


@pytest.mark.parametrize("authorization", ["", "Bearer", "Basic abc", "Bearer abc"])
async def test_a_missing_token_is_rejected(provider: Served, authorization: str) -> None:
    async with httpx.AsyncClient() as client:
        url = f"{provider.url}/ucloud/local/jobs/retrieveProducts"
        assert (await client.get(url, headers={"Authorization": authorization})).status_code == 401


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"items": []}', b'{"items": [1]}', b'{"items": [{"id": "x"}]}']
)
@pytest.mark.parametrize("call", ["", "terminate", "extend", "suspend", "verify"])
async def test_an_invalid_body_is_a_400_with_a_reason(
    provider: Served, call: str, body: bytes
) -> None:
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {provider.token()}"}) as client:
        answer = await client.post(f"{provider.url}/ucloud/local/jobs/{call}", content=body)
    assert answer.status_code == 400
    assert answer.json()["why"]
