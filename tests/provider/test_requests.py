"""Authentication of requests, beyond the rules of the contract suite."""

from __future__ import annotations

from typing import Any

import pytest
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import InvalidStatus

from tests.provider.provider_process import Served


async def test_follow_needs_a_token(provider: Served) -> None:
    url = f"{provider.url.replace('http', 'ws')}/ucloud/local/jobs/follow"
    with pytest.raises(InvalidStatus):
        async with connect_websocket(url):
            pass


@pytest.mark.parametrize(
    "changes",
    [{"iss": None}, {"sub": None}, {"iat": None}, {"algorithm": "HS256", "key": "x" * 64}],
    ids=" ".join,
)
async def test_an_invalid_token_is_rejected(provider: Served, changes: dict[str, Any]) -> None:
    answer = await provider.call("retrieveProducts", token=provider.token(**changes))
    assert answer.status_code == 401
    assert answer.json()["why"]
