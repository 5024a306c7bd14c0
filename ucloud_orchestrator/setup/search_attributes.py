"""The search attributes of jobs: without one of them every job that has a value for it would be
stuck.
"""

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
    """Raise `SetupError` unless the client's namespace has them all, of the right type."""
    if missing := await _missing(client):
        raise SetupError(
            f"Temporal's namespace {client.namespace} has no search attribute "
            f"{', '.join(missing)}: "
            "run 'ucloud-orchestrator setup'."
        )


async def register_search_attributes(client: Client) -> list[Step]:
    """Register those that the client's namespace does not have; the others stay.

    Raises `SetupError`.
    """
    missing = await _missing(client)
    there = [name for name in SEARCH_ATTRIBUTES if name not in missing]
    steps = [Step("there", f"the search attributes {', '.join(there)}")] if there else []
    if missing:
        await _add(client, missing)
        steps.append(Step("made", f"the search attributes {', '.join(missing)}"))
    return steps


async def _missing(client: Client) -> list[str]:
    """Raises `SetupError` if one is there and of another type."""
    types = await _types(client)
    if types is None:
        return [name for name in SEARCH_ATTRIBUTES if not await _can_be_searched(client, name)]
    if wrong := [name for name in SEARCH_ATTRIBUTES if types.get(name, KEYWORD) != KEYWORD]:
        said = ", ".join(f"{name} is of type {_type_name(types[name])}" for name in wrong)
        raise SetupError(
            f"In Temporal's namespace {client.namespace} the search attribute {said} instead of "
            "Keyword: "
            "use another namespace (TEMPORAL_NAMESPACE), or remove the attribute there and run "
            "setup again."
        )
    return [name for name in SEARCH_ATTRIBUTES if name not in types]


async def _types(client: Client) -> Mapping[str, IndexedValueType.ValueType] | None:
    """The namespace's own search attributes with their types; None if the cluster does not tell
    this client.
    """
    request = ListSearchAttributesRequest(namespace=client.namespace)
    try:
        return (await client.operator_service.list_search_attributes(request)).custom_attributes
    except RPCError as error:
        if is_denied(error):
            return None
        raise


async def _can_be_searched(client: Client, name: str) -> bool:
    """Whether visibility knows an attribute, which everybody may ask who may see workflows."""
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
            "the namespace "
            f"{client.namespace} ({error.message.rstrip('.')}): have its administrator add them, "
            "or use another "
            "namespace (TEMPORAL_NAMESPACE), and run setup again."
        ) from error


def _type_name(kind: IndexedValueType.ValueType) -> str:
    return IndexedValueType.Name(kind).removeprefix("INDEXED_VALUE_TYPE_").title()
