"""The provider's settings: environment variables `UCLOUD_PROVIDER_*`, or one TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import SettingsConfigDict

from ucloud_orchestrator.models.product import (
    BackendSupport,
    ComputeSupport,
    ProductReference,
    ProductSupport,
)
from ucloud_orchestrator.process.settings import MonitoredSettings
from ucloud_orchestrator.provider.auth.session_tokens import LIFETIME

LOCAL_SUPPORT = ComputeSupport(
    native=BackendSupport(
        enabled=True,
        web=True,
        vnc=True,
        logs=True,
        peers=True,
        terminal=True,
        time_extension=True,
        utilization=True,
        suspension=True,
    )
)
"""The support for programs that are installed on the machine."""
NetworkChoice = Literal["auto", "separate", "host"]
HOME_DRIVE = "home"
"""The drive that holds the output of jobs, below `Jobs/<job id>`."""


class SlurmOptions(BaseModel):
    """Options of `sbatch` for the jobs of a product; None leaves one to Slurm or to the product."""

    model_config = ConfigDict(extra="forbid")

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    cores: int | None = Field(default=None, ge=1)
    """Of each node; the product's `cpu` otherwise."""
    memory: int | None = Field(default=None, ge=1)
    """MB of each node; the product's `memoryInGigs` otherwise."""
    gpus: int | None = Field(default=None, ge=0)
    """Of each node; the product's `gpu` otherwise."""
    requeue: bool = False
    """Whether Slurm may restart a job after a preemption or the failure of a node."""
    time_margin: int = Field(default=600, ge=60)
    """Seconds by which Slurm's time limit exceeds the time allocation: the orchestrator ends jobs
    first.
    """


class ProductExecutor(BaseModel):
    """The executor of a product's jobs; without an entry it is `local`."""

    model_config = ConfigDict(extra="forbid")

    product: str
    category: str
    executor: Literal["local", "slurm"] = "local"
    slurm: SlurmOptions = SlurmOptions()


class ProviderSettings(MonitoredSettings):
    """Read from the environment first, then from the TOML file that `UCLOUD_PROVIDER_CONFIG` names.

    The connection to Temporal is set by Temporal's own variables and profiles.
    """

    model_config = SettingsConfigDict(env_prefix="UCLOUD_PROVIDER_", extra="ignore")
    file_variable: ClassVar[str] = "UCLOUD_PROVIDER_CONFIG"

    id: str = "local"
    data_dir: Path = Path(".ucloud/provider")
    host: str = "127.0.0.1"
    port: int = Field(default=8889, ge=0, le=65535)
    """0: a free port."""
    maximum_request_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)
    """A larger body is rejected with 413. A batch of 500 jobs has a few megabytes."""
    public_key_file: Path = Path(".ucloud/keys/local.public.pem")
    """The orchestrator's public key for this provider (PEM)."""
    issuer: str = "cloud.sdu.dk"
    drives: dict[str, Path] = Field(default_factory=dict)
    """The folder of each drive; `home` is always `<data_dir>/drives/home`."""
    products: list[ProductSupport] = Field(default_factory=list)
    """The offered products; without an entry, one product `cpu-1` of category `cpu`."""
    executors: list[ProductExecutor] = Field(default_factory=list)
    """The executors of products; jobs of a product without an entry run on this machine."""
    slurm_interval: float = Field(default=10.0, gt=0)
    """Seconds between two polls of Slurm's queue; one poll covers all jobs."""
    system_folders: list[Path] = Field(default_factory=list)
    """More folders of this machine that every job may read, such as a centre's software."""
    public_url: str | None = None
    """The address for clients and browsers, such as `https://provider.example.com`; without it, the
    orchestrator's address of this provider.
    """
    web_domain: str | None = None
    """The domain in which each web session has a host name, such as `apps.provider.example.com`
    (with a port that is not the default); without it, sessions are paths of `public_url`.
    """
    session_lifetime: int = Field(default=LIFETIME, ge=1)
    """Seconds within which the address of a session must be opened; the session may last longer."""
    network: NetworkChoice = "auto"
    """`separate`: each job has a network of its own, or the provider does not start; `host`: jobs
    share the machine's network; `auto`: separate where the machine supports it.
    """
    charge_interval: float = Field(default=900.0, gt=0)
    """Seconds between two charges of a running job; the rest is charged at its end."""
    check_interval: float = Field(default=900.0, gt=0)
    """Seconds between two checks for orphans; each check by the orchestrator starts one too."""

    @property
    def offered_products(self) -> list[ProductSupport]:
        if self.products:
            return self.products
        reference = ProductReference(id="cpu-1", category="cpu", provider=self.id)
        return [ProductSupport(product=reference, support=LOCAL_SUPPORT)]

    @property
    def all_drives(self) -> dict[str, Path]:
        return self.drives | {HOME_DRIVE: self.data_dir / "drives" / HOME_DRIVE}
