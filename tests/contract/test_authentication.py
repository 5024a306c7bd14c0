"""A provider serves only the orchestrator."""

from __future__ import annotations

import time
from collections.abc import Callable

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.contract.orchestrator import ContractOrchestrator

pytestmark = pytest.mark.core


def _foreign_key() -> str:
    key = generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


TOKENS: dict[str, Callable[[ContractOrchestrator], str]] = {
    "that is signed with another key": lambda o: o.token(_foreign_key()),
    "of the algorithm none": lambda o: jwt.encode(o.claims(), None, algorithm="none"),
    "of HS256 with the public key as its secret": lambda o: o.confused_token(),
    "that has expired": lambda o: o.token(iat=int(time.time()) - 7200, exp=int(time.time()) - 3600),
    "that is issued in the future": lambda o: o.token(
        iat=int(time.time()) + 3600, exp=int(time.time()) + 7200
    ),
    "of another issuer": lambda o: o.token(iss="another.issuer"),
    "of another subject": lambda o: o.token(sub="alice"),
    "of another role": lambda o: o.token(role="USER"),
    "without a role": lambda o: o.token(role=None),
    "without an end": lambda o: o.token(exp=None),
    "that is not a token": lambda o: "nonsense",
}


async def test_a_request_of_the_orchestrator_is_served(orchestrator: ContractOrchestrator) -> None:
    answer = await orchestrator.get("retrieveProducts")
    assert answer.is_success, (
        f"A request with the orchestrator's token must be served; it got {answer.status_code}."
    )


@pytest.mark.parametrize("token", TOKENS)
async def test_a_wrong_token_is_rejected(orchestrator: ContractOrchestrator, token: str) -> None:
    authorization = f"Bearer {TOKENS[token](orchestrator)}"
    for method, call in (("GET", "retrieveProducts"), ("POST", "terminate")):
        answer = await orchestrator.send(method, call, authorization=authorization)
        assert answer.status_code in {401, 403}, (
            f"A request with a token {token} must be answered with 401 or 403; {call} got "
            f"{answer.status_code}."
        )


@pytest.mark.parametrize("authorization", [None, "", "Basic YWxpY2U6"])
async def test_a_request_without_a_token_is_rejected(
    orchestrator: ContractOrchestrator, authorization: str | None
) -> None:
    answer = await orchestrator.send("GET", "retrieveProducts", authorization=authorization)
    assert answer.status_code in {401, 403}, (
        "A request without a bearer token must be answered with 401 or 403; it got "
        f"{answer.status_code}."
    )
