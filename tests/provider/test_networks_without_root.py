"""The tests of networks, run by an unprivileged user."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.provider.network_fixtures import separate

pytestmark = pytest.mark.long
FILES = [
    str(Path(__file__).with_name(name)) for name in ("test_networks.py", "test_network_ends.py")
]


@separate
@pytest.mark.skipif(os.geteuid() != 0, reason="this is the run without root")
@pytest.mark.timeout(600)
async def test_networks_work_without_root() -> None:
    done = await asyncio.to_thread(run_without_root)
    assert done.returncode == 0, done.stdout[-5000:]


def run_without_root() -> subprocess.CompletedProcess[str]:
    """Run them with the first interpreter that another user may execute."""
    unprivileged = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        environment = {**os.environ, "HOME": folder, "PYTHONPATH": ":".join(filter(None, sys.path))}
        for python in (sys.executable, "/usr/bin/python3"):
            command = [
                *unprivileged,
                "sh",
                "-c",
                f"exec {python} -c 'import ucloud_orchestrator.provider.api.server, tests'",
            ]
            if (
                subprocess.run(
                    command, env=environment, capture_output=True, check=False
                ).returncode
                == 0
            ):
                options = ["-q", "-p", "no:cacheprovider", f"--basetemp={folder}/t"]
                command = [*unprivileged, python, "-m", "pytest", *options, *FILES]
                return subprocess.run(
                    command, env=environment, capture_output=True, text=True, check=False
                )
    pytest.skip("another user may not run this installation")
