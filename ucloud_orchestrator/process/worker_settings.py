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
    """The folder of the catalog."""
    database_url: str = "sqlite+aiosqlite:///.ucloud/store.sqlite"
    """`sqlite+aiosqlite:///PATH`, or `postgresql+asyncpg://USER:PASSWORD@HOST/NAME`."""
    keys_dir: Path = Path(".ucloud/keys")
    """Holds `<provider>.private.pem` for each provider; its public half goes to the provider."""
    provider_addresses: dict[str, str] = Field(default_factory=dict)
    """Addresses that take the place of those in the catalog, by the provider's id."""
    issuer: str = "cloud.sdu.dk"
    """Who signs the requests to providers, as their tokens say."""
    operators: list[str] = Field(default_factory=list)
    """Who may grant credits, by username."""
    monitor_interval: float = Field(default=900.0, gt=0)
    """Seconds between two checks of a provider's live jobs; `setup` puts it into the schedules."""
    retention_days: int | None = Field(default=None, ge=1, le=36500)
    """How long Temporal keeps workflows that have ended; `setup` sets it.

    Without it a namespace that `setup` makes has 30 days, and one that is there keeps its own.
    """
    compatible_with: str | None = Field(default=None, pattern=r"^\d+\.\d+$")
    """A release, such as `0.3`, that runs beside this one or may come back: nothing is begun that
    it does not know.
    """
    stop_timeout: float = Field(default=20.0, ge=0)
    """Seconds that calls may take to finish after SIGTERM; below the 30 s after which systemd and
    Kubernetes kill.
    """
    max_cached_workflows: int = Field(default=1000, ge=0)
    """Jobs that need no replay for their next task.

    With less than two, tasks may run out of time and are repeated.
    """
