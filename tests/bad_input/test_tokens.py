"""Tokens of every kind and clocks that differ: invalid ones are rejected with a sentence."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from hypothesis import strategies as st

from tests.bad_input.payloads import json_values, tries
from tests.provider.provider_process import Reports, Served
from ucloud_orchestrator.models.session import SessionType
from ucloud_orchestrator.provider.auth.authentication import LEEWAY, Authentication
from ucloud_orchestrator.provider.auth.session_tokens import Session, SessionTokens
from ucloud_orchestrator.provider.errors import InvalidSessionToken, NotAuthenticated

pytestmark = pytest.mark.long


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


HEADER = base64url(b'{"alg":"RS256","typ":"JWT"}')
BAD_TOKENS = {
    "a nested header": f"{base64url(b'[' * 20_000 + b']' * 20_000)}.{base64url(b'{}')}.x",
    "a nested value in the header": base64url(
        b'{"alg":"RS256","x":' + b"[" * 20_000 + b"]" * 20_000 + b"}"
    )
    + ".e30.x",
    "a million digits": base64url(b'{"alg":"RS256","x":' + b"9" * 40_000 + b"}") + ".e30.x",
    "many points": "." * 1000,
    "no text": "\xff\xfe.\xff.\xff",
    "an empty signature": f"{HEADER}.{base64url(b'{}')}.",
    "an unknown algorithm": base64url(b'{"alg":["RS256"]}') + ".e30.x",
    "a critical extension": base64url(b'{"alg":"RS256","crit":["b64"],"b64":false}') + ".e30.x",
}


@pytest.fixture
def sender(tmp_path: Path) -> Served:
    """A key pair and settings, without a server."""
    return Served(tmp_path, Reports())


@pytest.mark.parametrize("kind", BAD_TOKENS)
async def test_an_unreadable_token_is_a_401(served: Served, kind: str) -> None:
    headers = {"Authorization": b"Bearer " + BAD_TOKENS[kind].encode("latin-1")}
    async with httpx.AsyncClient(verify=False) as client:
        answer = await client.get(
            f"{served.url}/ucloud/local/jobs/retrieveProducts", headers=headers
        )
    assert (answer.status_code, bool(answer.json()["why"])) == (401, True)
    tokens = SessionTokens(served.settings.data_dir / "session-secret")
    with pytest.raises(InvalidSessionToken):
        tokens.check(BAD_TOKENS[kind], SessionType.SHELL)


@pytest.mark.parametrize(
    ("issued", "is_accepted"),
    [
        (-3600, False),
        (3600, False),
        (-LEEWAY // 2, True),
        (LEEWAY // 2, True),
        (LEEWAY + 30, False),
    ],
    ids=str,
)
async def test_clocks_may_differ_by_the_leeway(
    served: Served, issued: int, is_accepted: bool
) -> None:
    now = int(time.time())
    # As the orchestrator's own: valid for five minutes after its `iat`.
    token = served.token(iat=now + issued, exp=now + issued + 300)
    answer = await served.call("retrieveProducts", token=token)
    assert answer.status_code == (200 if is_accepted else 401)


def test_any_claims_are_accepted_or_rejected_in_a_sentence(sender: Served) -> None:
    authentication = Authentication(sender.settings.public_key_file.read_text(), "cloud.sdu.dk")
    private_key = (sender.folder / "keys" / "local.private.pem").read_text()
    good = {"iss": "cloud.sdu.dk", "sub": "_UCloud", "role": "SERVICE", "iat": 1, "exp": 2**33}
    authentication.check(f"Bearer {jwt.encode(good, private_key, algorithm='RS256')}")

    def check(changes: dict[str, Any]) -> None:
        signed = jwt.api_jws.encode(
            json.dumps(good | changes).encode(), private_key, algorithm="RS256"
        )
        reason = None
        try:
            authentication.check(f"Bearer {signed}")
        except NotAuthenticated as error:
            reason = str(error)
        if reason is None:
            assert {
                name: value for name, value in changes.items() if name in {"iss", "sub", "role"}
            }.items() <= good.items()
        else:
            assert reason.endswith(".")

    numbers = st.sampled_from([float("inf"), float("nan"), 1e308, "1", "inf"])
    tries(
        st.dictionaries(
            st.sampled_from([*good, "nbf", "aud", "x"]), json_values | numbers, min_size=1
        ),
        check,
        60,
    )


def test_a_session_token_opens_only_its_own_session(tmp_path: Path) -> None:
    tokens = SessionTokens(tmp_path / "secret")
    secret = (tmp_path / "secret").read_bytes()
    good = jwt.decode(
        tokens.issue(Session("job", 0, SessionType.SHELL)),
        secret,
        algorithms=["HS256"],
        audience="ucloud-session",
    )
    assert tokens.check(jwt.encode(good, secret, algorithm="HS256"), SessionType.SHELL) == Session(
        "job", 0, SessionType.SHELL
    )

    def check(made: tuple[dict[str, Any], str]) -> None:
        changes, junk = made
        for token in (
            junk,
            jwt.api_jws.encode(json.dumps(good | changes).encode(), b"x" * 32, algorithm="HS256"),
        ):
            with pytest.raises(InvalidSessionToken):
                tokens.check(token, SessionType.SHELL)
        try:
            opened = tokens.check(
                jwt.api_jws.encode(json.dumps(good | changes).encode(), secret, algorithm="HS256"),
                SessionType.SHELL,
            )
        except InvalidSessionToken:
            return
        assert isinstance(opened.job_id, str)

    numbers = st.sampled_from([float("inf"), float("nan"), 1e308])
    claims = st.dictionaries(
        st.sampled_from([*good, "nbf", "iat"]), json_values | numbers, min_size=1
    )
    junk = st.text(max_size=60) | st.binary(max_size=60).map(
        lambda data: f"{HEADER}.{base64url(data)}.x"
    )
    tries(st.tuples(claims, junk), check, 80)
