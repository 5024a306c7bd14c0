"""Connect to Temporal by Temporal's own environment variables and profiles."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter, DefaultFailureConverterWithEncodedAttributes
from temporalio.envconfig import ClientConfig, ClientConnectConfig
from temporalio.runtime import Runtime

from ucloud_orchestrator.temporal import tracing
from ucloud_orchestrator.temporal.connection_errors import (
    ConnectionConfigError,
    TemporalUnreachable,
)
from ucloud_orchestrator.temporal.encryption_keys import EncryptionKeyError, key_file

DEFAULT_ADDRESS = "localhost:7233"
CONFIG_FILE_VARIABLE = "TEMPORAL_CONFIG_FILE"


async def connect_to_temporal(
    address: str | None = None,
    namespace: str | None = None,
    *,
    configured: bool = True,
    runtime: Runtime | None = None,
    lazy: bool = False,
) -> Client:
    """Connect a client with our data converter and interceptors.

    Other settings are from Temporal's environment configuration (`TEMPORAL_ADDRESS`,
    `TEMPORAL_PROFILE`, ...) unless `configured` is false. `lazy` defers the connection to the first
    call. Raises `TemporalUnreachable`, `ConnectionConfigError`, `EncryptionKeyError` or
    `TracingUnavailable`.
    """
    config = load_connection_config() if configured else ClientConnectConfig()
    config["target_host"] = address or config.get("target_host") or DEFAULT_ADDRESS
    if namespace is not None:
        config["namespace"] = namespace
    converter, interceptors = create_data_converter(), tracing.interceptors()
    try:
        return await Client.connect(
            **config,
            data_converter=converter,
            interceptors=interceptors,
            runtime=runtime,
            lazy=lazy,
        )
    except RuntimeError as error:
        raise TemporalUnreachable(config["target_host"], str(error)) from error
    except ValueError as error:
        raise ConnectionConfigError(
            f"The connection to {config['target_host']} is set wrongly: {error}."
        ) from error


def load_connection_config() -> ClientConnectConfig:
    """Load Temporal's environment configuration, without connecting.

    Raises `ConnectionConfigError`.
    """
    file = os.environ.get(CONFIG_FILE_VARIABLE)
    if file and not Path(file).exists():  # the SDK would ignore that
        raise ConnectionConfigError(f"There is no file {file}, which {CONFIG_FILE_VARIABLE} names.")
    try:
        config = ClientConfig.load_client_connect_config(config_file_strict=True)
    except OSError as error:
        raise ConnectionConfigError(
            f"The file {error.filename} of the TLS settings cannot be read ({error.strerror})."
        ) from error
    except RuntimeError as error:
        # The error quotes lines of the profile, which may have the API key.
        text = ", ".join(
            line.strip() for line in str(error).splitlines() if line.strip() and "|" not in line
        )
        raise ConnectionConfigError(
            f"Temporal's profile cannot be used: {text.rstrip('.')}."
        ) from None
    if (key := config.get("api_key")) and not (key.isascii() and key.isprintable()):
        # The SDK would connect without the key.
        raise ConnectionConfigError(
            "The API key of Temporal holds a line break or another character that none has."
        )
    return config


def create_data_converter() -> DataConverter:
    """Create the data converter: JSON of the models, encrypted if there is a key file.

    Raises `EncryptionKeyError`.
    """
    file = key_file()
    if file is None:
        return pydantic_data_converter
    try:
        from ucloud_orchestrator.temporal.encryption import EncryptionCodec, read_keys
    except ImportError as error:
        raise EncryptionKeyError(
            "Encryption needs the library 'cryptography': install the extra 'encryption'."
        ) from error
    return replace(
        pydantic_data_converter,
        payload_codec=EncryptionCodec(read_keys(file)),
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )
