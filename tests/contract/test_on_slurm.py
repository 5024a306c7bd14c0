"""Our provider passes the suite with a real Slurm cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.contract.conftest import free_address, our_provider
from tests.contract.suite import run_suite
from tests.provider.slurm_provider import cluster

pytestmark = pytest.mark.long

__all__ = ["cluster"]
PRODUCT = {"id": "node-1", "category": "slurm"}
SUPPORT = {
    "enabled": True,
    "logs": True,
    "terminal": True,
    "peers": True,
    "timeExtension": True,
    "utilization": True,
    "suspension": True,
}


@pytest.mark.timeout(500)
async def test_our_provider_passes_the_suite_on_slurm(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if request.config.getoption("contract_provider_url"):
        pytest.skip("Another provider is under test.")
    request.getfixturevalue("cluster")
    offered = {"product": PRODUCT | {"provider": "local"}, "support": {"native": SUPPORT}}
    entry = {"product": PRODUCT["id"], "category": PRODUCT["category"], "executor": "slurm"}
    monkeypatch.setenv("UCLOUD_PROVIDER_PRODUCTS", json.dumps([offered]))
    monkeypatch.setenv("UCLOUD_PROVIDER_EXECUTORS", json.dumps([entry]))
    monkeypatch.setenv("UCLOUD_PROVIDER_SLURM_INTERVAL", "0.3")
    temporal = free_address()
    async with our_provider(tmp_path, temporal) as provider:
        key = tmp_path / "keys" / "local.private.pem"
        await run_suite(provider.url, key, temporal, "--product", "node-1/slurm", seconds=480)
