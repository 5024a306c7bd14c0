"""Settings: the environment overrides the file; an error names a setting, not its value."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest

from ucloud_orchestrator.process.settings import SettingsError
from ucloud_orchestrator.process.worker_settings import WorkerSettings
from ucloud_orchestrator.provider.settings import ProviderSettings
from ucloud_orchestrator.temporal.codec_server import CodecServerSettings


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UCLOUD_CONFIG", str(tmp_path / "worker.toml"))
    return tmp_path / "worker.toml"


def test_the_environment_overrides_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('issuer = "file"\noperators = ["anna"]\n')
    monkeypatch.setenv("UCLOUD_ISSUER", "environment")
    settings = WorkerSettings.read()
    assert (settings.issuer, settings.operators) == ("environment", ["anna"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("retention = 30", r"There is no setting retention, which stands in .*worker.toml\."),
        ("issuer", r"UCLOUD_CONFIG names .*worker.toml, which is not TOML: .*"),
        (
            "health_port = 70000",
            r"The setting health_port in .*worker.toml is wrong: input should be less than .*",
        ),
        (
            None,
            r"UCLOUD_CONFIG names .*worker.toml, which cannot be read \(No such file or "
            r"directory\)\.",
        ),
    ],
)
def test_an_error_names_the_setting_in_the_file(
    file: Path, text: str | None, sentence: str
) -> None:
    if text is not None:
        file.write_text(text)
    with pytest.raises(SettingsError, match=f"^{sentence}$"):
        WorkerSettings.read()


@pytest.mark.parametrize(
    ("kind", "variable", "value", "sentence"),
    [
        (
            WorkerSettings,
            "UCLOUD_OPERATORS",
            "secret",
            "The setting UCLOUD_OPERATORS is wrong: it must be",
        ),
        (
            WorkerSettings,
            "UCLOUD_RETENTION_DAYS",
            "0",
            "The setting UCLOUD_RETENTION_DAYS is wrong: input should be",
        ),
        (
            ProviderSettings,
            "UCLOUD_PROVIDER_METRICS_ADDRESS",
            "9465",
            "The setting UCLOUD_PROVIDER_METRICS_ADDRESS is wrong: '9465' is not an address: it "
            "must be host:port",
        ),
        (
            ProviderSettings,
            "UCLOUD_PROVIDER_PRODUCTS",
            "[{}]",
            "The setting UCLOUD_PROVIDER_PRODUCTS.0.product",
        ),
        (
            CodecServerSettings,
            "UCLOUD_CODEC_PORT",
            "secret",
            "The setting UCLOUD_CODEC_PORT is wrong: ",
        ),
        (
            WorkerSettings,
            "UCLOUD_LOG_LEVEL",
            "secret",
            "The setting UCLOUD_LOG_LEVEL is wrong: input should be 'DEBUG'",
        ),
    ],
)
def test_an_error_names_the_variable_without_its_value(
    kind: type[WorkerSettings],
    variable: str,
    value: str,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as raised:
        kind.read()
    assert str(raised.value).startswith(sentence)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("module", "variable"),
    [
        ("worker", "UCLOUD_HEALTH_PORT"),
        ("ucloud_orchestrator.provider", "UCLOUD_PROVIDER_PORT"),
        ("ucloud_orchestrator.temporal.codec_server", "UCLOUD_CODEC_PORT"),
    ],
)
def test_a_process_exits_with_the_error(
    module: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "none")
    done = subprocess.run(
        [sys.executable, "-m", module], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"The setting {variable} is wrong: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_public_key_error_names_setup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UCLOUD_PROVIDER_PUBLIC_KEY_FILE", str(tmp_path / "local.public.pem"))
    monkeypatch.setenv("UCLOUD_PROVIDER_DATA_DIR", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "ucloud_orchestrator.provider"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert (
        "local.public.pem cannot be read (No such file or directory): 'ucloud-orchestrator setup'"
        in done.stderr
    )


def test_the_log_level_is_case_insensitive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UCLOUD_PROVIDER_LOG_LEVEL", "debug")
    assert ProviderSettings.read().log_level == "DEBUG"


@pytest.mark.parametrize(
    ("module", "variable"),
    [
        ("ucloud_orchestrator.provider", "UCLOUD_PROVIDER_PUBLIC_KEY_FILE"),
        ("ucloud_orchestrator.temporal.codec_server", "UCLOUD_CODEC_PUBLIC_KEY_FILE"),
    ],
)
def test_an_invalid_key_file_is_an_error_at_start(
    module: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, keys = tmp_path / "key.pem", tmp_path / "encryption.keys"
    key.write_text("-----BEGIN PUBLIC KEY-----\nnone\n-----END PUBLIC KEY-----\n")
    keys.write_text(f"one {base64.b64encode(bytes(32)).decode()}\n")
    keys.chmod(0o600)
    monkeypatch.setenv(variable, str(key))
    monkeypatch.setenv("UCLOUD_PROVIDER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("UCLOUD_ENCRYPTION_KEY_FILE", str(keys))
    done = subprocess.run(
        [sys.executable, "-m", module], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in (2, 3)
    assert f"{key} holds no public" in done.stderr
    assert "Traceback" not in done.stderr
