"""Register the search attributes of jobs. A workflow with an unregistered one cannot progress."""

from __future__ import annotations

from collections.abc import Mapping

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    ListSearchAttributesRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from ucloud_orchestrator.setup.steps import SetupError, Step, is_denied
from ucloud_orchestrator.temporal.names import SEARCH_ATTRIBUTES

KEYWORD = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD


async def require_search_attributes(client: Client) -> None:
    """Raise `SetupError` unless the namespace has all search attributes, of the right type."""
    if missing := await _missing(client):
        raise SetupError(
            f"Temporal's namespace {client.namespace} has no search attribute "
            f"{', '.join(missing)}: run 'ucloud-orchestrator setup'."
        )


async def register_search_attributes(client: Client) -> list[Step]:
    """Register the missing search attributes. Idempotent. Raises `SetupError`."""
    missing = await _missing(client)
    existing = [name for name in SEARCH_ATTRIBUTES if name not in missing]
    steps = [Step("there", f"the search attributes {', '.join(existing)}")] if existing else []
    if missing:
        await _add(client, missing)
        steps.append(Step("made", f"the search attributes {', '.join(missing)}"))
    return steps


async def _missing(client: Client) -> list[str]:
    """Return the missing search attributes. Raises `SetupError` for one of another type."""
    types = await _types(client)
    if types is None:
        return [name for name in SEARCH_ATTRIBUTES if not await _is_searchable(client, name)]
    if wrong := [name for name in SEARCH_ATTRIBUTES if types.get(name, KEYWORD) != KEYWORD]:
        wrong_types = ", ".join(f"{name} is of type {_type_name(types[name])}" for name in wrong)
        raise SetupError(
            f"In Temporal's namespace {client.namespace} the search attribute {wrong_types} "
            "instead of Keyword: use another namespace (TEMPORAL_NAMESPACE), or remove the "
            "attribute there and run setup again."
        )
    return [name for name in SEARCH_ATTRIBUTES if name not in types]


async def _types(client: Client) -> Mapping[str, IndexedValueType.ValueType] | None:
    """Return the namespace's custom search attributes by name; None without permission."""
    request = ListSearchAttributesRequest(namespace=client.namespace)
    try:
        return (await client.operator_service.list_search_attributes(request)).custom_attributes
    except RPCError as error:
        if is_denied(error):
            return None
        raise


async def _is_searchable(client: Client, name: str) -> bool:
    """Check for an attribute by a query, for which the permission to list workflows suffices."""
    try:
        await client.count_workflows(f"{name} = 'none'")
    except RPCError as error:
        if error.status is RPCStatusCode.INVALID_ARGUMENT:
            return False
        raise
    return True


async def _add(client: Client, names: list[str]) -> None:
    request = AddSearchAttributesRequest(
        namespace=client.namespace, search_attributes=dict.fromkeys(names, KEYWORD)
    )
    try:
        await client.operator_service.add_search_attributes(request)
    except RPCError as error:
        if not (is_denied(error) or error.status is RPCStatusCode.INVALID_ARGUMENT):
            raise
        raise SetupError(
            f"Temporal does not take the search attributes {', '.join(names)} of type Keyword for "
            f"the namespace {client.namespace} ({error.message.rstrip('.')}): have its "
            "administrator add them, or use another namespace (TEMPORAL_NAMESPACE), and run setup "
            "again."
        ) from error


def _type_name(kind: IndexedValueType.ValueType) -> str:
    return IndexedValueType.Name(kind).removeprefix("INDEXED_VALUE_TYPE_").title()
