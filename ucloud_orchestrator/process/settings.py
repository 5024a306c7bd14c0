"""Read the settings of a process: environment variables first, then one TOML file."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, TomlConfigSettingsSource
from pydantic_settings import SettingsError as SourceError

from ucloud_orchestrator.process.logging import LogFormat, LogLevel


class SettingsError(ValueError):
    """Invalid settings. Each line of the text is a sentence about one; none has its value."""


class ProcessSettings(BaseSettings):
    file_variable: ClassVar[str]
    """The environment variable with the path of the TOML file."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources = [init_settings, env_settings]
        if file := os.environ.get(cls.file_variable):
            sources.append(TomlConfigSettingsSource(settings_cls, file))
        return tuple(sources)

    @classmethod
    def read(cls) -> Self:
        """Read the settings of this process. Raises `SettingsError`."""
        cls._check_file()
        try:
            return cls()
        except ValidationError as error:
            raise SettingsError(
                "\n".join(
                    f"{cls._describe(*detail['loc'])} is wrong: {_reason(detail['msg'])}."
                    for detail in error.errors()
                )
            ) from error
        except SourceError as error:
            wrong_fields = [name for name in cls.model_fields if f'"{name}"' in str(error)]
            raise SettingsError(
                f"{cls._describe(*wrong_fields)} is wrong: it must be written as JSON."
            ) from error

    @classmethod
    def variable(cls, field: str) -> str:
        return f"{cls.model_config.get('env_prefix', '')}{field}".upper()

    @classmethod
    def _describe(cls, field: int | str = "", *within: int | str) -> str:
        """Name a setting by its source: the environment variable, or the key in the file."""
        variable = cls.variable(str(field))
        path = "".join(f".{part}" for part in within)
        if variable in os.environ:
            return f"The setting {variable}{path}"
        return f"The setting {field}{path} in {os.environ.get(cls.file_variable)}"

    @classmethod
    def _check_file(cls) -> None:
        """Reject a missing file and unknown keys, which pydantic-settings would ignore."""
        file = os.environ.get(cls.file_variable)
        if not file:
            return
        try:
            document = tomllib.loads(Path(file).read_text())
        except OSError as error:
            reason = error.strerror or "it is not a file"
            raise SettingsError(
                f"{cls.file_variable} names {file}, which cannot be read ({reason})."
            ) from error
        except ValueError as error:
            raise SettingsError(
                f"{cls.file_variable} names {file}, which is not TOML: {error}."
            ) from error
        if unknown := sorted(document.keys() - cls.model_fields.keys()):
            raise SettingsError(
                f"There is no setting {', '.join(unknown)}, which stands in {file}."
            )


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


class MonitoredSettings(ProcessSettings):
    metrics_address: str | None = None
    """The address that Prometheus scrapes, such as `127.0.0.1:9464`; None: no metrics."""
    health_host: str = "127.0.0.1"
    health_port: int | None = Field(default=None, ge=0, le=65535)
    """The port of `/healthz` and `/readyz`; None: no health checks."""
    log_level: Annotated[LogLevel, BeforeValidator(_upper)] = "INFO"
    log_format: LogFormat = "text"

    @field_validator("metrics_address")
    @classmethod
    def _check_metrics_address(cls, address: str | None) -> str | None:
        if address is not None:
            host_and_port(address)
        return address


def host_and_port(address: str) -> tuple[str, int]:
    """Split `host:port`. Raises `ValueError`."""
    parts = urlsplit(f"//{address}")
    if parts.hostname is None or parts.port is None:
        raise ValueError(
            f"{address!r} is not an address: it must be host:port, such as 127.0.0.1:9464"
        )
    return parts.hostname, parts.port


def _reason(message: str) -> str:
    text = message.removeprefix("Value error, ").rstrip(".")
    return text[:1].lower() + text[1:]
