"""The minimal provider of the examples passes the core of the suite."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.conftest import free_address
from tests.contract.suite import ROOT, run_suite
from ucloud_orchestrator.setup import make_keys


@pytest.mark.timeout(300)
async def test_the_minimal_provider_passes_the_core(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if request.config.getoption("contract_provider_url"):
        pytest.skip("Another provider is under test.")
    make_keys(tmp_path, "local")
    temporal, served = free_address(), free_address()
    environment = os.environ | {"TEMPORAL_ADDRESS": temporal, "PYTHONPATH": str(ROOT)}
    port, key = served.rpartition(":")[2], str(tmp_path / "local.public.pem")
    command = [sys.executable, str(ROOT / "examples" / "minimal_provider.py"), port, key]
    with await asyncio.to_thread(subprocess.Popen, command, env=environment) as provider:
        try:
            private_key = tmp_path / "local.private.pem"
            await run_suite(f"http://{served}", private_key, temporal, "-m", "core", seconds=280)
        finally:
            provider.kill()
