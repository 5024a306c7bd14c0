"""The settings of the worker and of its setup."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from ucloud_orchestrator.process.settings import MonitoredSettings


class WorkerSettings(MonitoredSettings):
    """Environment variables `UCLOUD_*`, or one TOML file named by `UCLOUD_CONFIG`.

    The connection to Temporal is set by Temporal's own variables and profiles.
    """

    model_config = SettingsConfigDict(env_prefix="UCLOUD_", extra="ignore")
    file_variable: ClassVar[str] = "UCLOUD_CONFIG"

    catalog: Path = Path("examples/catalog")
    database_url: str = "sqlite+aiosqlite:///.ucloud/store.sqlite"
    """`sqlite+aiosqlite:///PATH`, or `postgresql+asyncpg://USER:PASSWORD@HOST/NAME`."""
    keys_dir: Path = Path(".ucloud/keys")
    """Holds `<provider>.private.pem` for each provider; its public half goes to the provider."""
    provider_addresses: dict[str, str] = Field(default_factory=dict)
    """Addresses by provider id; they override those of the catalog."""
    issuer: str = "cloud.sdu.dk"
    """The issuer of the tokens in requests to providers."""
    operators: list[str] = Field(default_factory=list)
    """The usernames that may grant credits."""
    provider_check_interval: float = Field(default=900.0, gt=0)
    """Seconds between two checks of a provider's live jobs; `setup` sets it in the schedules."""
    retention_days: int | None = Field(default=None, ge=1, le=36500)
    """The retention of closed workflows in Temporal's namespace; `setup` sets it.

    None: 30 days for a new namespace, no change for an existing one.
    """
    compatible_with: str | None = Field(default=None, pattern=r"^\d+\.\d+$")
    """An older release that also runs or may again, such as `0.5`: newer patches are inactive."""
    stop_timeout: float = Field(default=20.0, ge=0)
    """Seconds for calls to finish after SIGTERM; below the 30 s of systemd and Kubernetes."""
    max_cached_workflows: int = Field(default=1000, ge=0)
    """Workflows in the worker's cache, which need no replay for their next task.

    With fewer than two, tasks may time out and are repeated.
    """
