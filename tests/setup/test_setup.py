"""Run `setup` on an existing cluster: what it creates, keeps and rejects."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from tests.conftest import SERVER_TIMEOUT, TEMPORAL_BINARY, TEST_CATALOG
from tests.end_to_end.reverse_proxies import Front, nginx_before
from ucloud_orchestrator.process.worker_settings import WorkerSettings
from ucloud_orchestrator.setup import (
    SetupError,
    Step,
    make_keys,
    require_search_attributes,
    run_setup,
    schedule_provider_check,
)
from ucloud_orchestrator.setup.namespace import prepare_namespace
from ucloud_orchestrator.setup.search_attributes import register_search_attributes
from ucloud_orchestrator.temporal.connection import connect_to_temporal
from ucloud_orchestrator.temporal.names import SEARCH_ATTRIBUTES

INTEGER = IndexedValueType.INDEXED_VALUE_TYPE_INT
KEYWORD = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD


@pytest.fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Front]:
    """Start a server without our namespace, behind a proxy that denies operator calls."""
    started = await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(TEMPORAL_BINARY),
        dev_server_log_level="never",
        dev_server_startup_timeout=SERVER_TIMEOUT,
    )
    async with started as running:
        address = running.client.service_client.config.target_host
        with nginx_before(address, tmp_path_factory.mktemp("cluster")) as front:
            yield front


@pytest.fixture
def namespace(cluster: Front, monkeypatch: pytest.MonkeyPatch) -> str:
    """Choose a new namespace, and set it for our programs."""
    name = f"jobs-{uuid.uuid4().hex[:8]}"
    monkeypatch.setenv("TEMPORAL_ADDRESS", cluster.temporal)
    monkeypatch.setenv("TEMPORAL_NAMESPACE", name)
    return name


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    return WorkerSettings(
        catalog=TEST_CATALOG,
        database_url=f"sqlite+aiosqlite:///{tmp_path / 'data' / 'store.sqlite'}",
        keys_dir=tmp_path / "keys",
    )


async def steps_of(settings: WorkerSettings) -> list[Step]:
    return [step async for step in run_setup(settings)]


async def add_attributes(client: Client, **types: IndexedValueType.ValueType) -> None:
    await client.operator_service.add_search_attributes(
        AddSearchAttributesRequest(namespace=client.namespace, search_attributes=types)
    )


async def test_setup_creates_everything_once(
    namespace: str, settings: WorkerSettings, tmp_path: Path
) -> None:
    first = await steps_of(settings)
    assert [step.outcome for step in first if "database" not in step.what] == ["made"] * (
        len(first) - 1
    )
    output = "\n".join(str(step) for step in first)
    assert f"made     the namespace {namespace}, which keeps ended workflows for 30 days" in output
    assert all(name in output for name in SEARCH_ATTRIBUTES)
    client = await connect_to_temporal()
    await require_search_attributes(client)
    await client.count_workflows(" AND ".join(f"{name} = 'x'" for name in SEARCH_ATTRIBUTES))
    schedules = [entry.id async for entry in await client.list_schedules()]
    assert (
        {step.what.split(",")[0] for step in first if "schedule" in step.what}
        == {f"the schedule {schedule}" for schedule in schedules}
        != set()
    )

    before = {file: file.read_bytes() for file in (tmp_path / "keys").iterdir()}
    second = await steps_of(settings)
    assert {step.outcome for step in second} == {"there"}
    assert [step.what.split(",")[0] for step in second] == [
        step.what.split(",")[0] for step in first
    ]
    assert {file: file.read_bytes() for file in (tmp_path / "keys").iterdir()} == before


async def test_retention_changes_only_by_the_setting(namespace: str) -> None:
    client = await connect_to_temporal()
    assert (await prepare_namespace(client, timedelta(days=3))).outcome == "made"
    assert str(await prepare_namespace(client, None)) == (
        f"there    the namespace {namespace}, which keeps ended workflows for 3 days"
    )
    assert str(await prepare_namespace(client, timedelta(days=1))) == (
        f"changed  the namespace {namespace}, which keeps ended workflows for 1 day instead of 3 "
        "days"
    )
    assert (await prepare_namespace(client, timedelta(days=1))).outcome == "there"


async def test_missing_search_attributes_are_added(namespace: str) -> None:
    client = await connect_to_temporal()
    await prepare_namespace(client, None)
    with pytest.raises(
        SetupError, match=r"has no search attribute JobState, .*: run 'ucloud-orchestrator setup'\."
    ):
        await require_search_attributes(client)
    await add_attributes(client, JobOwner=KEYWORD, Another=INTEGER)
    existing, created = await register_search_attributes(client)
    assert (str(existing), created.outcome) == ("there    the search attributes JobOwner", "made")
    assert "JobOwner" not in created.what


async def test_a_search_attribute_of_another_type_stops_setup(
    namespace: str, settings: WorkerSettings, tmp_path: Path
) -> None:
    client = await connect_to_temporal()
    await prepare_namespace(client, None)
    await add_attributes(client, JobState=INTEGER)
    sentence = (
        f"In Temporal's namespace {namespace} the search attribute JobState is of type Int "
        "instead of Keyword: use "
        "another namespace (TEMPORAL_NAMESPACE), or remove the attribute there and run setup again."
    )
    for call in (steps_of(settings), require_search_attributes(client)):
        with pytest.raises(SetupError) as raised:
            await call
        assert str(raised.value) == sentence
    assert await asyncio.to_thread(os.listdir, tmp_path) == []


async def test_a_full_namespace_is_an_error(namespace: str) -> None:
    client = await connect_to_temporal()
    await prepare_namespace(client, None)
    await add_attributes(client, **{f"Other{number}": KEYWORD for number in range(5)})
    with pytest.raises(
        SetupError, match=r"cannot have more than 10 search attribute of type Keyword\): have its"
    ):
        await register_search_attributes(client)


async def test_without_operator_permission_attributes_are_checked_by_query(
    namespace: str, cluster: Front, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At hosted clusters administrators create the namespace and its attributes."""
    administrator = await connect_to_temporal()
    await prepare_namespace(administrator, None)
    await add_attributes(administrator, JobState=KEYWORD)
    monkeypatch.setenv("TEMPORAL_ADDRESS", cluster.without_operator)
    client = await connect_to_temporal()
    with pytest.raises(
        SetupError, match=r"JobName, .* of type Keyword .*: have its admin"
    ) as raised:
        await steps_of(settings)
    assert "JobState" not in str(raised.value)
    with pytest.raises(SetupError, match="has no search attribute JobOwner, "):
        await require_search_attributes(client)

    await register_search_attributes(administrator)
    await require_search_attributes(client)
    assert {step.outcome for step in (await steps_of(settings))[:2]} == {"there"}


async def test_a_paused_schedule_stays_paused(namespace: str) -> None:
    client = await connect_to_temporal()
    await prepare_namespace(client, None)
    assert (await schedule_provider_check(client, "local", timedelta(minutes=15))).outcome == "made"
    handle = client.get_schedule_handle("check-local")
    await handle.pause(note="The provider moves.")
    assert (
        await schedule_provider_check(client, "local", timedelta(minutes=15))
    ).outcome == "there"
    assert str(await schedule_provider_check(client, "local", timedelta(minutes=5))) == (
        "changed  the schedule check-local, every 300 s"
    )
    schedule = (await handle.describe()).schedule
    assert schedule.state.paused
    assert [interval.every for interval in schedule.spec.intervals] == [timedelta(minutes=5)]


def test_an_existing_private_key_is_kept(tmp_path: Path) -> None:
    private_file, public_file = tmp_path / "local.private.pem", tmp_path / "local.public.pem"
    assert make_keys(tmp_path, "local") == "made"
    private_key, public_key = private_file.read_bytes(), public_file.read_bytes()
    assert load_pem_private_key(private_key, None)
    assert stat.S_IMODE(private_file.stat().st_mode) == 0o600
    public_file.unlink()  # it was moved to the provider's machine
    assert make_keys(tmp_path, "local") == "made"
    assert (private_file.read_bytes(), public_file.read_bytes()) == (private_key, public_key)
    public_file.unlink()
    private_file.write_text("nonsense")
    with pytest.raises(SetupError, match="holds no private key"):
        make_keys(tmp_path, "local")


def test_the_command_prints_each_step(namespace: str, settings: WorkerSettings) -> None:
    environment = os.environ | {
        "UCLOUD_CATALOG": str(TEST_CATALOG),
        "UCLOUD_DATABASE_URL": settings.database_url,
        "UCLOUD_KEYS_DIR": str(settings.keys_dir),
        "UCLOUD_LOG_LEVEL": "WARNING",
    }

    def setup(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "worker", "setup", *options]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    done = setup()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"made     the namespace {namespace}, ")
    assert done.stdout.endswith("Everything is ready.\n")
    event = json.loads(setup("--json").stdout)
    assert event["event"] == "set up"
    assert {step["outcome"] for step in event["steps"]} == {"there"}
