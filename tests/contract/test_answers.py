"""The form of a provider's answers, and its rejections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.orchestrator import ContractOrchestrator
from ucloud_orchestrator.models.provider_api import ProductsResponse, Utilization

Make = Callable[..., dict[str, Any]]
BODIES = {
    "is not JSON": b"{",
    "is empty": b"",
    "is a list": b"[]",
    "has no items": b"{}",
    "has items that are not a list": b'{"items": 3}',
    "has a job without an id": b'{"items": [{"specification": {}}]}',
    "has a job that is null": b'{"items": [null]}',
}


def is_rejection(status: int) -> bool:
    """Return whether the status rejects a request for good."""
    return 400 <= status < 500 and status not in {401, 403, 408, 429}


@pytest.mark.core
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("call", ["", "terminate", "verify"])
async def test_a_malformed_body_is_rejected_with_a_reason(
    orchestrator: ContractOrchestrator, call: str, body: str
) -> None:
    answer = await orchestrator.send(
        "POST",
        call,
        authorization=f"Bearer {orchestrator.token()}",
        content=BODIES[body],
    )
    assert is_rejection(answer.status_code), (
        f"A body that {body} must be rejected with 4xx; it got {answer.status_code}."
    )
    document = answer.json()
    assert (document if isinstance(document, dict) else {}).get("why"), (
        f"A rejection must say `why`; it said {answer.text!r}."
    )


@pytest.mark.core
async def test_an_unknown_product_is_rejected(
    orchestrator: ContractOrchestrator, job: Make
) -> None:
    made = job("true")
    made["specification"]["product"]["id"] = "no-such-product"
    answer = await orchestrator.post("", made)
    assert is_rejection(answer.status_code), (
        f"An unknown product must be rejected with 4xx; it got {answer.status_code}."
    )
    assert answer.json().get("why"), f"A rejection must say `why`; it said {answer.text!r}."


@pytest.mark.core
async def test_unknown_fields_are_tolerated(orchestrator: ContractOrchestrator, job: Make) -> None:
    made = job("true") | {"fromTheFuture": {"more": [1]}}
    made["specification"]["fromTheFuture"] = True
    await orchestrator.end_of(await orchestrator.created(made))


@pytest.mark.core
async def test_products_are_named_with_their_support(
    orchestrator: ContractOrchestrator, product: str
) -> None:
    answer = await orchestrator.get("retrieveProducts")
    assert answer.is_success, f"`retrieveProducts` must succeed; it got {answer.status_code}."
    try:
        products = ProductsResponse.model_validate(answer.json()).responses
    except ValueError as error:
        pytest.fail(
            f"`retrieveProducts` must answer with `responses` of `product` and `support`: {error}"
        )
    names = {f"{entry.product.id}/{entry.product.category}" for entry in products}
    assert product in names, f"`retrieveProducts` must name {product}; it named {sorted(names)}."
    providers = {entry.product.provider for entry in products}
    assert providers == {orchestrator.provider.id}, (
        f"Products must be the provider's own; they are of {providers}."
    )


async def test_utilization_has_capacity_use_and_queue(orchestrator: ContractOrchestrator) -> None:
    answer = await orchestrator.get("retrieveUtilization")
    assert answer.is_success, f"`retrieveUtilization` must succeed; it got {answer.status_code}."
    try:
        utilization = Utilization.model_validate(answer.json())
    except ValueError as error:
        pytest.fail(
            "`retrieveUtilization` must answer with `capacity`, `usedCapacity` and "
            f"`queueStatus`: {error}"
        )
    numbers = (
        utilization.capacity.cpu,
        utilization.capacity.memory,
        utilization.used_capacity.cpu,
        utilization.used_capacity.memory,
    )
    assert min(numbers) >= 0, f"No number of `retrieveUtilization` may be negative: {answer.text}."
