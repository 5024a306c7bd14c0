"""How every program of ours connects to Temporal: by Temporal's own environment variables and
profiles.
"""

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
"""Temporal's own default, for an environment that names none."""
CONFIG_FILE_VARIABLE = "TEMPORAL_CONFIG_FILE"


async def connect_to_temporal(
    address: str | None = None,
    namespace: str | None = None,
    *,
    configured: bool = True,
    runtime: Runtime | None = None,
    lazy: bool = False,
) -> Client:
    """A Temporal client that speaks our payloads.

    What is not given comes from `TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE`, `TEMPORAL_PROFILE`, ...
    (Temporal's environment configuration), unless `configured` is false. With `lazy` the connection
    is made at the first call. Raises `TemporalUnreachable`, or `ConnectionConfigError`,
    `EncryptionKeyError` or `TracingUnavailable` if what the environment asks for cannot be had.
    """
    config = connection_settings() if configured else ClientConnectConfig()
    config["target_host"] = address or config.get("target_host") or DEFAULT_ADDRESS
    if namespace is not None:
        config["namespace"] = namespace
    converter, interceptors = data_converter(), tracing.interceptors()
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


def connection_settings() -> ClientConnectConfig:
    """What the environment and its profile say; nothing is connected.

    Raises `ConnectionConfigError`.
    """
    file = os.environ.get(CONFIG_FILE_VARIABLE)
    if file and not Path(file).exists():  # the SDK would go on without it
        raise ConnectionConfigError(f"There is no file {file}, which {CONFIG_FILE_VARIABLE} names.")
    try:
        config = ClientConfig.load_client_connect_config(config_file_strict=True)
    except OSError as error:
        raise ConnectionConfigError(
            f"The file {error.filename} of the TLS settings cannot be read ({error.strerror})."
        ) from error
    except RuntimeError as error:
        # Without the lines that it quotes: they may hold the API key.
        text = ", ".join(
            line.strip() for line in str(error).splitlines() if line.strip() and "|" not in line
        )
        raise ConnectionConfigError(
            f"Temporal's profile cannot be used: {text.rstrip('.')}."
        ) from None
    if (key := config.get("api_key")) and not (key.isascii() and key.isprintable()):
        # The SDK would leave it out without a word.
        raise ConnectionConfigError(
            "The API key of Temporal holds a line break or another character that none has."
        )
    return config


def data_converter() -> DataConverter:
    """How payloads are written: as the models' JSON, encrypted if the environment names a file of
    keys.
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
