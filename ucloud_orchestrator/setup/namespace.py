"""Create the namespace of the jobs, and set its retention."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from temporalio.api.namespace.v1 import NamespaceConfig
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    RegisterNamespaceRequest,
    UpdateNamespaceRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from ucloud_orchestrator.setup.steps import SetupError, Step, is_denied

DEFAULT_RETENTION = timedelta(days=30)
"""The retention of a new namespace. The archive keeps jobs without a limit."""

TIMEOUT = 30.0
"""Seconds until a new namespace must be available."""


async def prepare_namespace(client: Client, retention: timedelta | None) -> Step:
    """Create the client's namespace, or change its retention. Raises `SetupError`."""
    current = await _retention(client)
    if current is None:
        await _register(client, retention or DEFAULT_RETENTION)
        await _wait_until_available(client)
        return Step("made", _describe(client, retention or DEFAULT_RETENTION))
    if retention is None or retention == current:
        return Step("there", _describe(client, current))
    config = NamespaceConfig(workflow_execution_retention_ttl=_duration(retention))
    try:
        await client.workflow_service.update_namespace(
            UpdateNamespaceRequest(namespace=client.namespace, config=config)
        )
    except RPCError as error:
        if not is_denied(error):
            raise
        raise SetupError(
            "Temporal does not let this client change the retention of the namespace "
            f"{client.namespace} ({error.message.rstrip('.')}): have its administrator set "
            f"{_days(retention)}, or leave UCLOUD_RETENTION_DAYS out."
        ) from error
    return Step("changed", f"{_describe(client, retention)} instead of {_days(current)}")


async def _retention(client: Client) -> timedelta | None:
    """Return the namespace's retention; None if there is no namespace."""
    try:
        response = await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=client.namespace)
        )
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        if is_denied(error):
            raise SetupError(
                f"Temporal does not let this client see the namespace {client.namespace} "
                f"({error.message.rstrip('.')}): check TEMPORAL_NAMESPACE and what its "
                "certificate or API key may do."
            ) from error
        raise
    return response.config.workflow_execution_retention_ttl.ToTimedelta()


async def _register(client: Client, retention: timedelta) -> None:
    request = RegisterNamespaceRequest(
        namespace=client.namespace,
        description="Compute jobs of UCloud",
        workflow_execution_retention_period=_duration(retention),
    )
    try:
        await client.workflow_service.register_namespace(request)
    except RPCError as error:
        if error.status is RPCStatusCode.ALREADY_EXISTS:  # by a concurrent setup
            return
        if not is_denied(error):
            raise
        raise SetupError(
            f"Temporal does not let this client make the namespace {client.namespace} "
            f"({error.message.rstrip('.')}): have its administrator make it, or correct "
            "TEMPORAL_NAMESPACE, and run setup again."
        ) from error


async def _wait_until_available(client: Client) -> None:
    """Wait until the server accepts calls: it caches its namespaces and refreshes periodically."""
    end = time.monotonic() + TIMEOUT
    while True:
        try:
            await client.count_workflows()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND or time.monotonic() > end:
                raise
            await asyncio.sleep(0.2)
        else:
            return


def _duration(length: timedelta) -> Duration:
    duration = Duration()
    duration.FromTimedelta(length)
    return duration


def _describe(client: Client, retention: timedelta) -> str:
    return f"the namespace {client.namespace}, which keeps ended workflows for {_days(retention)}"


def _days(length: timedelta) -> str:
    days = length / timedelta(days=1)
    return f"{days:g} day{'' if days == 1 else 's'}"
