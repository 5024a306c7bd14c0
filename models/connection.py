"""How every program of ours connects to Temporal: by Temporal's own environment variables and profiles."""

from __future__ import annotations

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.envconfig import ClientConfig
from temporalio.runtime import Runtime

DEFAULT_ADDRESS = "localhost:7233"
"""Temporal's own default, for an environment that names none."""


async def connect_to_temporal(
    address: str | None = None, namespace: str | None = None, *, runtime: Runtime | None = None, lazy: bool = False
) -> Client:
    """A Temporal client that speaks our payloads.

    What is not given comes from `TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE`, `TEMPORAL_PROFILE`, ... (Temporal's
    environment configuration). With `lazy` the connection is made at the first call.
    """
    config = ClientConfig.load_client_connect_config(config_file_strict=True)
    config["target_host"] = address or config.get("target_host") or DEFAULT_ADDRESS
    if namespace is not None:
        config["namespace"] = namespace
    return await Client.connect(**config, data_converter=pydantic_data_converter, runtime=runtime, lazy=lazy)
