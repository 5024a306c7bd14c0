"""Two stacks for all tests that kill nothing: one as `dev` starts it, one with other settings."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator

import pytest

from tests.end_to_end.collector import Collector
from tests.end_to_end.running_stack import Stack
from tests.end_to_end.stack_catalog import CATALOG
from ucloud_orchestrator.cli.supervisor import free_port
from ucloud_orchestrator.temporal.encryption_keys import KEY_FILE_VARIABLE
from ucloud_orchestrator.temporal.tracing import ENDPOINT_VARIABLE


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Return the stack that tests share: each leaves its catalog as it was, and no live job."""
    environment = {
        "UCLOUD_METRICS_ADDRESS": f"127.0.0.1:{free_port()}",
        "UCLOUD_HEALTH_PORT": str(free_port()),
        "UCLOUD_LOG_FORMAT": "json",
        "UCLOUD_STOP_TIMEOUT": "2",
        "UCLOUD_PROVIDER_CHARGE_INTERVAL": "2",
    }
    running = Stack(tmp_path_factory.mktemp("stack"), CATALOG, environment)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    collecting = Collector()
    yield collecting
    collecting.close()


@pytest.fixture(scope="session")
def traced_stack(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Return a stack that encrypts what it keeps in Temporal, and sends traces."""
    folder = tmp_path_factory.mktemp("traced")
    (folder / "encryption-keys").write_text(f"first {base64.b64encode(os.urandom(32)).decode()}\n")
    environment = {
        KEY_FILE_VARIABLE: str(folder / "encryption-keys"),
        ENDPOINT_VARIABLE: collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",  # milliseconds
        "UCLOUD_MAX_CACHED_WORKFLOWS": "0",  # each workflow task replays the whole history
        "UCLOUD_STOP_TIMEOUT": "2",
    }
    running = Stack(folder, environment=environment)
    yield running
    running.stop()
