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
"""What this provider can do with programs that are on the machine."""
NetworkChoice = Literal["auto", "separate", "host"]
HOME_DRIVE = "home"
"""The drive that holds the output of jobs, below `Jobs/<job id>`."""


class SlurmOptions(BaseModel):
    """How the jobs of a product are submitted to Slurm; what is None is left to Slurm, or to the
    product.
    """

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
    """Whether Slurm may start a job again from its beginning, after it was preempted or a node
    failed.
    """
    time_margin: int = Field(default=600, ge=60)
    """Seconds that Slurm's time limit is above the time allocation, so that the orchestrator's own
    expiry is first.
    """


class ProductExecutor(BaseModel):
    """Which executor runs the jobs of a product of this provider; without an entry it is
    `local`.
    """

    model_config = ConfigDict(extra="forbid")

    product: str
    """The product's id."""
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
    """0: a free one."""
    maximum_request_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)
    """A larger body is refused with 413 before it is read.

    A batch of 500 jobs, each with its application, has a few megabytes.
    """
    public_key_file: Path = Path(".ucloud/keys/local.public.pem")
    """The orchestrator's public key for this provider (PEM)."""
    issuer: str = "cloud.sdu.dk"
    drives: dict[str, Path] = Field(default_factory=dict)
    """The folder of each drive; `home` is always `<data_dir>/drives/home`."""
    products: list[ProductSupport] = Field(default_factory=list)
    """What it offers; without an entry, one product `cpu-1` of category `cpu`."""
    executors: list[ProductExecutor] = Field(default_factory=list)
    """Which executor runs the jobs of a product; those of a product without an entry run on this
    machine.
    """
    slurm_interval: float = Field(default=10.0, gt=0)
    """Seconds between two looks at Slurm's queue; one look is for all jobs."""
    system_folders: list[Path] = Field(default_factory=list)
    """More folders of this machine that every job may read, for example where a centre keeps its
    software.
    """
    public_url: str | None = None
    """Where clients and browsers reach this provider, such as `https://provider.example.com`;
    without it, the address at which the orchestrator does.
    """
    web_domain: str | None = None
    """The domain below which every web session has a host name of its own, such as
    `apps.provider.example.com` (with its port if that is not the usual one); without it, sessions
    are paths of `public_url`, which they share.
    """
    session_lifetime: int = Field(default=LIFETIME, ge=1)
    """Seconds in which the address of a session must be opened; a session that is open may last
    longer.
    """
    network: NetworkChoice = "auto"
    """`separate`: every job has a network of its own, or the provider does not start; `host`: all
    share this machine's; `auto`: separate where the machine can do it.
    """
    charge_interval: float = Field(default=900.0, gt=0)
    """Seconds between two charges of a running job; the rest is charged at its end."""
    check_interval: float = Field(default=900.0, gt=0)
    """Seconds between two looks for jobs here that no workflow owns; each check of the orchestrator
    brings one too.
    """

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
