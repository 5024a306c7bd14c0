"""The provider under test, and the Temporal server to which it reports."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from tests.builders import resolved_product, shell_job
from tests.conftest import SERVER_TIMEOUT, TEMPORAL_BINARY
from tests.contract.orchestrator import (
    TASK_QUEUE,
    ContractOrchestrator,
    ProviderUnderTest,
    RecordedJob,
)
from ucloud_orchestrator.setup import make_keys

DEFAULT_PRODUCT = "cpu-1/cpu"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that takes a product with every product."""
    if "product" in metafunc.fixturenames:
        products = metafunc.config.getoption("contract_products") or [DEFAULT_PRODUCT]
        metafunc.parametrize("product", products, scope="session")


def free_address() -> str:
    """Return a loopback address whose port was free a moment ago."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture(scope="session")
async def temporal_client(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    """Start a Temporal server where the provider reports, with the recording workflow."""
    address = request.config.getoption("contract_temporal_address") or free_address()
    host, _, port = address.rpartition(":")
    server = await WorkflowEnvironment.start_local(
        ip=host,
        port=int(port),
        dev_server_existing_path=str(TEMPORAL_BINARY),
        dev_server_log_level="never",
        dev_server_startup_timeout=SERVER_TIMEOUT,
        data_converter=pydantic_data_converter,
    )
    async with (
        server as environment,
        Worker(
            environment.client,
            task_queue=TASK_QUEUE,
            workflows=[RecordedJob],
            workflow_runner=UnsandboxedWorkflowRunner(),
        ),
    ):
        yield environment.client


@pytest.fixture(scope="session")
async def provider_under_test(
    request: pytest.FixtureRequest,
    temporal_client: Client,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[ProviderUnderTest]:
    """Return the provider of the options, or start ours as a process."""
    option = request.config.getoption
    if url := option("contract_provider_url"):
        key = await asyncio.to_thread(Path(option("contract_private_key")).read_text)
        yield ProviderUnderTest(
            url.rstrip("/"), option("contract_provider_id"), key, option("contract_issuer")
        )
        return
    folder = tmp_path_factory.mktemp("contract")
    async with our_provider(folder, temporal_client.service_client.config.target_host) as provider:
        yield provider


@asynccontextmanager
async def our_provider(folder: Path, temporal: str) -> AsyncIterator[ProviderUnderTest]:
    """Start our provider as a process that charges each second and reports to `temporal`."""
    make_keys(folder / "keys", "local")
    environment = os.environ | {
        "TEMPORAL_ADDRESS": temporal,
        "UCLOUD_PROVIDER_ID": "local",
        "UCLOUD_PROVIDER_PORT": "0",
        "UCLOUD_PROVIDER_CHARGE_INTERVAL": "1",
        "UCLOUD_PROVIDER_DATA_DIR": str(folder / "provider"),
        "UCLOUD_PROVIDER_PUBLIC_KEY_FILE": str(folder / "keys" / "local.public.pem"),
    }
    with (folder / "provider.log").open("w") as log:
        process = await asyncio.to_thread(
            subprocess.Popen,
            [sys.executable, "-m", "ucloud_orchestrator.provider", "--json"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert process.stdout is not None
    with process, process.stdout as output:
        try:
            line = await asyncio.to_thread(output.readline)
            assert line, (folder / "provider.log").read_text()
            url, key = json.loads(line)["url"], (folder / "keys" / "local.private.pem").read_text()
            yield ProviderUnderTest(url, "local", key)
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait, 20)


@pytest.fixture(scope="session")
def orchestrator(
    request: pytest.FixtureRequest, provider_under_test: ProviderUnderTest, temporal_client: Client
) -> ContractOrchestrator:
    """Return the orchestrator's side of the protocol."""
    return ContractOrchestrator(
        provider_under_test, temporal_client, request.config.getoption("contract_report_timeout")
    )


@pytest.fixture
def job(provider_under_test: ProviderUnderTest, product: str) -> Callable[..., dict[str, Any]]:
    """Return a builder of jobs that run a script on the product."""
    product_id, _, category = product.partition("/")
    reference = {"id": product_id, "category": category, "provider": provider_under_test.id}
    specification = {
        "product": reference,
        "parameters": {},
        "resources": [],
        "timeAllocation": {"hours": 0, "minutes": 10, "seconds": 0},
    }

    def build(script: str, price: int = 0, **changes: Any) -> dict[str, Any]:
        """Build a job that costs `price` credits a minute."""
        priced = resolved_product(
            reference,
            pricePerUnit=price,
            unitOfPrice="CREDITS_PER_MINUTE",
            freeToUse=price == 0,
            cpu=1,
            memoryInGigs=1,
        )
        job = shell_job(script, status={"resolvedProduct": priced}, **specification | changes)
        return job | {"createdAt": int(time.time() * 1000), "updates": []}

    return build


@pytest.fixture
async def support(orchestrator: ContractOrchestrator, product: str) -> dict[str, Any]:
    """Return the provider's support for programs on the product."""
    for entry in (await orchestrator.get("retrieveProducts")).json()["responses"]:
        if f"{entry['product']['id']}/{entry['product']['category']}" == product:
            return dict(entry["support"].get("native") or {})
    raise AssertionError(
        f"`retrieveProducts` must name the product {product}, which the suite was given."
    )
