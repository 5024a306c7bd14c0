"""Tokens of every kind, and clocks that differ: what is refused, and that it is refused with a
sentence.
"""

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


def packed(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


HEADER = packed(b'{"alg":"RS256","typ":"JWT"}')
BAD_TOKENS = {
    "a nested header": f"{packed(b'[' * 20_000 + b']' * 20_000)}.{packed(b'{}')}.x",
    "a nested value in the header": packed(
        b'{"alg":"RS256","x":' + b"[" * 20_000 + b"]" * 20_000 + b"}"
    )
    + ".e30.x",
    "a million digits": packed(b'{"alg":"RS256","x":' + b"9" * 40_000 + b"}") + ".e30.x",
    "many points": "." * 1000,
    "no text": "\xff\xfe.\xff.\xff",
    "an empty signature": f"{HEADER}.{packed(b'{}')}.",
    "an unknown algorithm": packed(b'{"alg":["RS256"]}') + ".e30.x",
    "a critical extension": packed(b'{"alg":"RS256","crit":["b64"],"b64":false}') + ".e30.x",
}


@pytest.fixture
def sender(tmp_path: Path) -> Served:
    """Has a key, and is not served."""
    return Served(tmp_path, Reports())


@pytest.mark.parametrize("kind", BAD_TOKENS)
async def test_a_token_that_cannot_be_read_is_a_401_of_the_api_and_of_sessions(
    served: Served, kind: str
) -> None:
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
    ("issued", "is_taken"),
    [
        (-3600, False),
        (3600, False),
        (-LEEWAY // 2, True),
        (LEEWAY // 2, True),
        (LEEWAY + 30, False),
    ],
    ids=str,
)
async def test_clocks_may_differ_by_the_leeway_and_no_more(
    served: Served, issued: int, is_taken: bool
) -> None:
    now = int(time.time())
    # As the orchestrator's own: good for five minutes from when it says that it was issued.
    token = served.token(iat=now + issued, exp=now + issued + 300)
    answer = await served.call("retrieveProducts", token=token)
    assert answer.status_code == (200 if is_taken else 401)


def test_any_claims_are_taken_or_refused_in_a_sentence(sender: Served) -> None:
    authentication = Authentication(sender.settings.public_key_file.read_text(), "cloud.sdu.dk")
    private_key = (sender.folder / "keys" / "local.private.pem").read_text()
    good = {"iss": "cloud.sdu.dk", "sub": "_UCloud", "role": "SERVICE", "iat": 1, "exp": 2**33}
    authentication.check(f"Bearer {jwt.encode(good, private_key, algorithm='RS256')}")

    def check(changes: dict[str, Any]) -> None:
        signed = jwt.api_jws.encode(
            json.dumps(good | changes).encode(), private_key, algorithm="RS256"
        )
        refused = None
        try:
            authentication.check(f"Bearer {signed}")
        except NotAuthenticated as error:
            refused = str(error)
        if refused is None:
            assert {
                name: value for name, value in changes.items() if name in {"iss", "sub", "role"}
            }.items() <= good.items()
        else:
            assert refused.endswith(".")

    numbers = st.sampled_from([float("inf"), float("nan"), 1e308, "1", "inf"])
    tries(
        st.dictionaries(
            st.sampled_from([*good, "nbf", "aud", "x"]), json_values | numbers, min_size=1
        ),
        check,
        60,
    )


def test_any_session_token_opens_its_own_session_or_nothing(tmp_path: Path) -> None:
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
        lambda data: f"{HEADER}.{packed(data)}.x"
    )
    tries(st.tuples(claims, junk), check, 80)
