"""A provider whose product runs in a real Slurm cluster."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.provider.provider_process import Reports, Served, serving
from tests.slurm.cluster import Cluster, missing_programs, running_cluster
from ucloud_orchestrator.provider.settings import ProductExecutor, SlurmOptions


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster for the tests of a file. Without Slurm they are skipped, but not where CI runs."""
    if missing := missing_programs():
        why = f"{', '.join(missing)} not found: install the Debian packages slurm-wlm and munge."
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    if os.geteuid() != 0:
        why = "A Slurm cluster on one machine needs root."
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    before = os.environ.get("SLURM_CONF")
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # munge wants its socket to be reachable for all
        with running_cluster(Path(folder) / "cluster") as running:
            os.environ["SLURM_CONF"] = str(running.configuration)
            yield running
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before


def slurm_served(folder: Path, reports: Reports, options: SlurmOptions | None = None) -> Served:
    """A provider whose one product runs in Slurm."""
    served = Served(folder, reports)
    options = options or SlurmOptions(partition="main", cores=1, memory=500)
    entry = ProductExecutor(product="cpu-1", category="cpu", executor="slurm", slurm=options)
    served.settings = served.settings.model_copy(
        update={"executors": [entry], "slurm_interval": 1.0}
    )
    return served


@pytest.fixture
async def slurm(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Served]:
    """Such a provider, served."""
    try:
        async with serving(slurm_served(tmp_path, Reports())) as served:
            yield served
    finally:
        cluster.cancel_all()  # a test that failed may have left a job
