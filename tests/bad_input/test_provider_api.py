"""Requests that the OpenAPI document allows or forbids: rejections have a reason, none is a 500."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.bad_input.payloads import almost, attempts, tries
from tests.builders import shell_job
from tests.provider.provider_process import Served
from ucloud_orchestrator.models.provider_api import ProviderError

pytestmark = pytest.mark.long

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
CALLS = ("", "terminate", "extend", "suspend", "unsuspend", "verify", "interactiveSession")
EXAMPLES = 48
"""For each call."""
SCHEMA_EXAMPLES = 6


@pytest.fixture
def no_traceback(caplog: pytest.LogCaptureFixture) -> Any:
    """Fail if a request leaves a traceback in the provider's log."""
    yield
    assert [record for record in caplog.get_records("call") if record.exc_info] == []


def headers(served: Served) -> dict[str, str]:
    return {"Authorization": f"Bearer {served.token()}"}


def item_of(call: str) -> dict[str, Any]:
    job = shell_job("true")
    return {
        "extend": {"job": job, "requestedTime": {"hours": 1}},
        "suspend": {"job": job},
        "unsuspend": {"job": job},
        "interactiveSession": {"job": job, "rank": 0, "sessionType": "SHELL"},
    }.get(call, job)


def is_documented(answer: httpx.Response) -> bool:
    if answer.status_code == 200:
        return True
    return 400 <= answer.status_code < 500 and bool(ProviderError.model_validate(answer.json()).why)


@pytest.mark.parametrize("call", [*CALLS, "retrieveProducts", "retrieveUtilization"])
@pytest.mark.usefixtures("no_traceback")
async def test_every_call_conforms_to_its_openapi_document(served: Served, call: str) -> None:
    async with httpx.AsyncClient(headers=headers(served), verify=False) as client:
        document = (await client.get(f"{served.url}/openapi.json")).json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=served.url)
    (operation,) = [
        operation
        for operation in (found.ok() for found in schema.get_all_operations())
        if operation.path == f"/ucloud/local/jobs/{call}"
    ]

    def check(case: schemathesis.Case) -> None:
        answer = case.call(headers=headers(served), timeout=30)
        case.validate_response(answer, checks=CHECKS)
        if answer.status_code >= 400:
            assert ProviderError.model_validate(answer.json()).why

    # schemathesis needs a second of processor time per example of so large a document.
    strategy = operation.as_strategy(schemathesis.GenerationMode.POSITIVE)
    if operation.method != "get":
        strategy |= operation.as_strategy(schemathesis.GenerationMode.NEGATIVE)
    await asyncio.to_thread(tries, strategy, check, SCHEMA_EXAMPLES)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.usefixtures("no_traceback")
async def test_an_almost_valid_body_is_accepted_or_rejected_with_a_reason(
    served: Served, call: str
) -> None:
    async with httpx.AsyncClient(headers=headers(served), verify=False) as client:

        async def check(body: Any) -> None:
            answer = await client.post(f"{served.url}/ucloud/local/jobs/{call}", json=body)
            assert is_documented(answer), (answer.status_code, answer.text)

        await attempts(almost({"items": [item_of(call)]}), check, EXAMPLES)


@pytest.mark.usefixtures("no_traceback")
async def test_bytes_that_are_not_json_are_rejected_with_a_reason(served: Served) -> None:
    url = f"{served.url}/ucloud/local/jobs/terminate"
    async with httpx.AsyncClient(headers=headers(served), verify=False) as client:

        async def check(request: tuple[bytes, str | None]) -> None:
            body, kind = request
            more = {} if kind is None else {"content-type": kind}
            answer = await client.post(url, content=body, headers=more)
            assert answer.status_code == 400, answer.text
            assert answer.json()["why"]

        kinds = st.sampled_from(
            [None, "application/json", "text/plain", "application/json; charset=utf-16", "x"]
        )
        good = json.dumps({"items": [shell_job("true")]}).encode()
        cut = st.integers(0, len(good) - 1).map(lambda length: good[:length])
        await attempts(st.tuples(st.binary(max_size=200) | cut, kinds), check, EXAMPLES)
