"""The provider's settings: environment variables `UCLOUD_PROVIDER_*`, or one TOML file."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from models.product import BackendSupport, ComputeSupport, ProductReference, ProductSupport

LOCAL_SUPPORT = ComputeSupport(
    native=BackendSupport(enabled=True, logs=True, time_extension=True, utilization=True, suspension=True)
)
"""What this provider can do with programs that are on the machine."""
HOME_DRIVE = "home"
"""The drive that holds the output of jobs, below `Jobs/<job id>`."""


class ProviderSettings(BaseSettings):
    """Read from the environment first, then from the TOML file that `UCLOUD_PROVIDER_CONFIG` names.

    The connection to Temporal is set by Temporal's own variables and profiles.
    """

    model_config = SettingsConfigDict(env_prefix="UCLOUD_PROVIDER_", extra="ignore")

    id: str = "local"
    data_dir: Path = Path(".ucloud/provider")
    host: str = "127.0.0.1"
    port: int = Field(default=8889, ge=0, le=65535)
    """0: a free one."""
    public_key_file: Path = Path(".ucloud/keys/local.public.pem")
    """The orchestrator's public key for this provider (PEM)."""
    issuer: str = "cloud.sdu.dk"
    drives: dict[str, Path] = {}
    """The folder of each drive; `home` is always `<data_dir>/drives/home`."""
    products: list[ProductSupport] = []
    """What it offers; without an entry, one product `cpu-1` of category `cpu`."""
    system_folders: list[Path] = []
    """More folders of this machine that every job may read, for example where a centre keeps its software."""
    charge_interval: float = Field(default=900.0, gt=0)
    """Seconds between two charges of a running job; the rest is charged at its end."""
    check_interval: float = Field(default=900.0, gt=0)
    """Seconds between two looks for jobs here that no workflow owns; each check of the orchestrator brings one too."""
    log_level: str = "INFO"

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
        if file := os.environ.get("UCLOUD_PROVIDER_CONFIG"):
            sources.append(TomlConfigSettingsSource(settings_cls, file))
        return tuple(sources)

    @property
    def offered_products(self) -> list[ProductSupport]:
        """The products with what can be done with them."""
        if self.products:
            return self.products
        reference = ProductReference(id="cpu-1", category="cpu", provider=self.id)
        return [ProductSupport(product=reference, support=LOCAL_SUPPORT)]

    @property
    def all_drives(self) -> dict[str, Path]:
        """Every drive with its folder."""
        return self.drives | {HOME_DRIVE: self.data_dir / "drives" / HOME_DRIVE}
