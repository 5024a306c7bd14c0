"""The example of a minimal provider passes the core of the suite."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from installation import make_keys
from tests.contract.conftest import free_address

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
async def test_the_minimal_provider_keeps_the_core(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if request.config.getoption("contract_provider_url"):
        pytest.skip("Another provider is asked.")
    make_keys(tmp_path, "local")
    temporal, served = free_address(), free_address()
    environment = os.environ | {"TEMPORAL_ADDRESS": temporal, "PYTHONPATH": str(ROOT)}
    port, key = served.rpartition(":")[2], str(tmp_path / "local.public.pem")
    command = [sys.executable, str(ROOT / "examples" / "minimal_provider.py"), port, key]
    suite = [sys.executable, "-m", "pytest", "tests/contract", "-m", "core", "-q", "-x", "-p", "no:cacheprovider"]
    suite += ["--provider-url", f"http://{served}", "--private-key", str(tmp_path / "local.private.pem")]
    suite += ["--temporal-address", temporal]
    with await asyncio.to_thread(subprocess.Popen, command, env=environment) as provider:
        try:
            told = await asyncio.to_thread(
                subprocess.run, suite, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280
            )
        finally:
            provider.kill()
    assert told.returncode == 0, told.stdout[-4000:] + told.stderr[-2000:]
