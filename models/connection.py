"""How every program of ours connects to Temporal: by Temporal's own environment variables and profiles."""

from __future__ import annotations

from dataclasses import replace

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter, DefaultFailureConverterWithEncodedAttributes
from temporalio.envconfig import ClientConfig
from temporalio.runtime import Runtime

from models import tracing
from models.encryption_keys import UnusableKeys, key_file

DEFAULT_ADDRESS = "localhost:7233"
"""Temporal's own default, for an environment that names none."""


async def connect_to_temporal(
    address: str | None = None, namespace: str | None = None, *, runtime: Runtime | None = None, lazy: bool = False
) -> Client:
    """A Temporal client that speaks our payloads.

    What is not given comes from `TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE`, `TEMPORAL_PROFILE`, ... (Temporal's
    environment configuration). With `lazy` the connection is made at the first call. Raises `UnusableKeys` or
    `TracingUnavailable` if encryption or traces are asked for and cannot be had.
    """
    config = ClientConfig.load_client_connect_config(config_file_strict=True)
    config["target_host"] = address or config.get("target_host") or DEFAULT_ADDRESS
    if namespace is not None:
        config["namespace"] = namespace
    return await Client.connect(
        **config,
        data_converter=data_converter(),
        interceptors=tracing.interceptors(),
        runtime=runtime,
        lazy=lazy,
    )


def data_converter() -> DataConverter:
    """How payloads are written: as the models' JSON, encrypted if the environment names a file of keys."""
    file = key_file()
    if file is None:
        return pydantic_data_converter
    try:
        from models.encryption import EncryptionCodec, read_keys
    except ImportError as error:
        raise UnusableKeys("Encryption needs the library 'cryptography': install the extra 'encryption'.") from error
    return replace(
        pydantic_data_converter,
        payload_codec=EncryptionCodec(read_keys(file)),
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )
