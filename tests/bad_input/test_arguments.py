"""Give invalid names and arguments to the command line of a running orchestrator."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml

from client import JobRejected
from tests.conftest import Orchestrator
from ucloud_orchestrator.cli.main import run

pytestmark = pytest.mark.long

LONG = "a" * 10_000
NOT_UTF8 = "\udcff\udcfe"
ARGUMENTS = [
    ["show", "../../etc/passwd"],
    ["show", LONG],
    ["show", "a\nb"],
    ["show", NOT_UTF8],
    ["show", "x", "--user", NOT_UTF8],
    ["cancel", "' OR 1=1"],
    ["cancel", "x", "--reason", LONG],
    ["extend", "x", "--hours", "9" * 5000],
    ["extend", "x", "--hours", "876001"],
    ["extend", "../x", "--hours", "1"],
    ["open", "..", "--rank", "-1"],
    ["logs", LONG],
    ["wallet", "--user", LONG],
    ["wallet", "grant", "5", f"{LONG}@local"],
    ["wallet", "grant", str(10**30), "cpu@local"],
    ["wallet", "grant", "5", "cpu@local", "--for-user", LONG],
    ["list", "--limit", "0"],
    ["list", "--state", "NOTHING"],
    ["dev", "--temporal-port", "99999999"],
]
HARMLESS = [
    ["list", "--application", "'; drop table jobs; --\\"],
    ["list", "--before", LONG[:900]],
    ["list", "--user", "../../etc/passwd"],
    ["list", "--provider", "a\nb"],
]


async def run_command(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> tuple[int, str]:
    code = await asyncio.to_thread(run, arguments)
    return code, capsys.readouterr().err


async def test_invalid_arguments_are_rejected_in_sentences(
    orchestrator: Orchestrator,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", orchestrator.temporal.service_client.config.target_host)
    monkeypatch.setenv("UCLOUD_USER", "alice")
    for arguments in ARGUMENTS:
        code, text = await run_command(capsys, arguments)
        assert (code, bool(text), "Traceback" in text) == (2, True, False), (arguments, code, text)
    for arguments in HARMLESS:
        assert await run_command(capsys, arguments) == (0, ""), arguments
    document = orchestrator.specification().to_wire()
    for name in ("../../etc/passwd", LONG):
        file = tmp_path / "job.yaml"
        file.write_text(
            yaml.safe_dump(document | {"application": {"name": name[:255], "version": "1"}})
        )
        code, text = await run_command(capsys, ["submit", str(file)])
        assert (code, text.startswith("There is no application")) == (2, True), text
        code, text = await run_command(capsys, ["submit", str(file), "--user", name + "x" * 300])
        assert code == 2, text
    assert orchestrator.provider.calls == []


@pytest.mark.parametrize(
    "job_id", ["../../etc/passwd", "a/b", ".", "a\nb", "é", "a" * 65, " "], ids=ascii
)
async def test_an_invalid_job_id_is_rejected_at_admission(
    orchestrator: Orchestrator, job_id: str
) -> None:
    with pytest.raises(JobRejected, match="id must be"):
        await orchestrator.jobs.create(orchestrator.specification(), job_id)
    assert orchestrator.provider.calls == []
