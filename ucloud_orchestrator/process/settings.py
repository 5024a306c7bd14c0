"""How a process reads its settings: environment variables first, then one TOML file; mistakes are
told in sentences.
"""

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
    """Settings cannot be used; each line of the text is a sentence that names one, and none shows a
    value.
    """


class ProcessSettings(BaseSettings):
    """The base of the settings of a process."""

    file_variable: ClassVar[str]
    """The environment variable that names the TOML file."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment first, then the file."""
        sources = [init_settings, env_settings]
        if file := os.environ.get(cls.file_variable):
            sources.append(TomlConfigSettingsSource(settings_cls, file))
        return tuple(sources)

    @classmethod
    def read(cls) -> Self:
        """The settings of this process. Raises `SettingsError`."""
        cls._check_file()
        try:
            return cls()
        except ValidationError as error:
            raise SettingsError(
                "\n".join(
                    f"{cls._written(*detail['loc'])} is wrong: {_reason(detail['msg'])}."
                    for detail in error.errors()
                )
            ) from error
        except SourceError as error:
            wrong_fields = [name for name in cls.model_fields if f'"{name}"' in str(error)]
            raise SettingsError(
                f"{cls._written(*wrong_fields)} is wrong: it must be written as JSON."
            ) from error

    @classmethod
    def variable(cls, field: str) -> str:
        """The environment variable of a field."""
        return f"{cls.model_config.get('env_prefix', '')}{field}".upper()

    @classmethod
    def _written(cls, field: int | str = "", *within: int | str) -> str:
        """A setting as it was written: in the environment, or in the file."""
        variable = cls.variable(str(field))
        path = "".join(f".{part}" for part in within)
        if variable in os.environ:
            return f"The setting {variable}{path}"
        return f"The setting {field}{path} in {os.environ.get(cls.file_variable)}"

    @classmethod
    def _check_file(cls) -> None:
        """That the file can be read and knows no setting that does not exist: the library would
        pass over both.
        """
        file = os.environ.get(cls.file_variable)
        if not file:
            return
        try:
            written = tomllib.loads(Path(file).read_text())
        except OSError as error:
            reason = error.strerror or "it is no file"
            raise SettingsError(
                f"{cls.file_variable} names {file}, which cannot be read ({reason})."
            ) from error
        except ValueError as error:
            raise SettingsError(
                f"{cls.file_variable} names {file}, which is not TOML: {error}."
            ) from error
        if unknown := sorted(written.keys() - cls.model_fields.keys()):
            raise SettingsError(
                f"There is no setting {', '.join(unknown)}, which stands in {file}."
            )


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


class MonitoredSettings(ProcessSettings):
    """What every process has that is watched: figures, health checks and logs."""

    metrics_address: str | None = None
    """Where Prometheus finds the figures, such as `127.0.0.1:9464`; without it there are none."""
    health_host: str = "127.0.0.1"
    health_port: int | None = Field(default=None, ge=0, le=65535)
    """Where `/healthz` and `/readyz` answer; without it nowhere."""
    log_level: Annotated[LogLevel, BeforeValidator(_upper)] = "INFO"
    log_format: LogFormat = "text"

    @field_validator("metrics_address")
    @classmethod
    def _check_metrics_address(cls, address: str | None) -> str | None:
        if address is not None:
            host_and_port(address)
        return address


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of `host:port`. Raises `ValueError`."""
    parts = urlsplit(f"//{address}")
    if parts.hostname is None or parts.port is None:
        raise ValueError(f"{address!r} is no address: it must be host:port, such as 127.0.0.1:9464")
    return parts.hostname, parts.port


def _reason(message: str) -> str:
    text = message.removeprefix("Value error, ").rstrip(".")
    return text[:1].lower() + text[1:]
