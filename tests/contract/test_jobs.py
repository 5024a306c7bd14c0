"""The lifecycle of a job at a provider: accepted once, reported correctly, ended once."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.orchestrator import TERMINAL, ContractOrchestrator

Make = Callable[..., dict[str, Any]]

LAYOUT = """
test "$(pwd)" = /work || exit 41
echo kept > /work/file || exit 42
test "$(cat /etc/ucloud/rank.txt)" = 0 || exit 43
test "$(cat /etc/ucloud/number_of_nodes.txt)" = 1 || exit 44
test -s /etc/ucloud/node-0.txt || exit 45
test "$(cat /etc/ucloud/job_id.txt)" = "{id}" || exit 46
test "$(cat /etc/ucloud/cores.txt)" -ge 1 || exit 47
exit 7
"""
MISTAKES = {
    "41": "A job must start in /work.",
    "42": "A job must be able to write below /work.",
    "43": "/etc/ucloud/rank.txt must hold the rank.",
    "44": "/etc/ucloud/number_of_nodes.txt must hold the number of replicas.",
    "45": "/etc/ucloud/node-0.txt must hold the address of rank 0.",
    "46": "/etc/ucloud/job_id.txt must hold the job's id.",
    "47": "/etc/ucloud/cores.txt must hold the number of cores.",
}


async def run_another(orchestrator: ContractOrchestrator, job: Make) -> None:
    """Run another job to its end: all earlier reports have been delivered then."""
    await orchestrator.end_of(await orchestrator.created(job("true")))


def numbers(update: dict[str, Any]) -> list[str]:
    """Return the numbers in a report's text."""
    return re.findall(r"\b\d+\b", update.get("status") or "")


@pytest.mark.core
async def test_a_job_runs_and_then_ends_once(orchestrator: ContractOrchestrator, job: Make) -> None:
    made = await orchestrator.created(job("true"))
    end = await orchestrator.end_of(made)
    assert end["state"] == "SUCCESS", (
        f"A job whose program ends must be a SUCCESS; it was reported as {end}."
    )
    await run_another(orchestrator, job)
    states = [
        state for update in await orchestrator.updates(made) if (state := update.get("state"))
    ]
    assert states[:1] == ["RUNNING"], (
        f"RUNNING must be reported before the end; the order was {states}."
    )
    assert sum(state in TERMINAL for state in states) == 1, (
        f"Exactly one end must be reported; there were {states}."
    )
    assert states[-1] in TERMINAL, (
        f"No state may be reported after the end; the order was {states}."
    )


@pytest.mark.core
async def test_an_exit_code_is_reported_and_is_not_a_failure(
    orchestrator: ContractOrchestrator, job: Make
) -> None:
    end = await orchestrator.end_of(await orchestrator.created(job("exit 3")))
    assert end["state"] == "SUCCESS", (
        f"A program's exit code is not a FAILURE of the provider; it reported {end}."
    )
    assert "3" in numbers(end), (
        f"The text of the end must hold the exit code 3; it was {end.get('status')!r}."
    )


@pytest.mark.core
async def test_each_report_goes_to_its_job_only(
    orchestrator: ContractOrchestrator, job: Make
) -> None:
    short, long = (
        await orchestrator.created(job("exit 3")),
        await orchestrator.created(job("sleep 300")),
    )
    await orchestrator.running(long)
    end = await orchestrator.end_of(short)
    assert "3" in numbers(end), (
        f"A job's end must be reported to it; the report was {end.get('status')!r}."
    )
    await run_another(orchestrator, job)
    states = await orchestrator.states(long)
    await orchestrator.post("terminate", long)
    assert states == ["RUNNING"], f"A report must go to its own job only; another job got {states}."
    await orchestrator.end_of(long)


@pytest.mark.core
async def test_create_answers_for_each_job(orchestrator: ContractOrchestrator, job: Make) -> None:
    made = [await orchestrator.start_workflow(job("true")) for _ in range(2)]
    answer = await orchestrator.post("", *made)
    assert answer.is_success, (
        f"A batch of valid jobs must be accepted; it got {answer.status_code}."
    )
    assert all(
        response is None or isinstance(response.get("id"), str | None)
        for response in answer.json()["responses"]
    ), "Each response of `create` must be null or hold the provider's `id` for the job."
    for each in made:
        await orchestrator.end_of(each)


@pytest.mark.core
async def test_a_repeated_create_starts_nothing(
    orchestrator: ContractOrchestrator, job: Make, support: dict[str, Any]
) -> None:
    made = await orchestrator.created(job("echo once; sleep 1"))
    for moment in ("while it runs", "after its end"):
        answer = await orchestrator.post("", made)
        assert answer.is_success, (
            f"A repeated `create` must succeed {moment}; it got {answer.status_code}."
        )
        await orchestrator.end_of(made)
    await run_another(orchestrator, job)
    states = await orchestrator.states(made)
    assert states == ["RUNNING", "SUCCESS"], (
        f"A repeated `create` must start nothing; the states were {states}."
    )
    if support.get("logs"):
        output = await orchestrator.output(made)
        assert output["stdout"] == "once\n", (
            f"A repeated `create` must start nothing; the output was {output}."
        )


@pytest.mark.core
async def test_a_batch_with_an_invalid_job_starts_none(
    orchestrator: ContractOrchestrator, job: Make
) -> None:
    valid, invalid = await orchestrator.start_workflow(job("true")), job("true")
    invalid["specification"]["product"]["id"] = "no-such-product"
    answer = await orchestrator.post("", valid, invalid)
    assert 400 <= answer.status_code < 500, (
        f"A batch with an invalid job must get 4xx; it got {answer.status_code}."
    )
    await orchestrator.post("verify", valid)
    await orchestrator.end_of(valid)
    await run_another(orchestrator, job)
    assert "RUNNING" not in await orchestrator.states(valid), (
        "No job of a rejected batch may be started."
    )


@pytest.mark.core
async def test_terminate_ends_a_running_job(orchestrator: ContractOrchestrator, job: Make) -> None:
    made = await orchestrator.created(job("sleep 300"))
    await orchestrator.running(made)
    for moment in ("of a running job", "of an ended job"):
        answer = await orchestrator.post("terminate", made)
        assert answer.is_success, f"`terminate` {moment} must succeed; it got {answer.status_code}."
        assert answer.json() == {"responses": [{}]}, (
            f"`terminate` must answer {{}} for each item: {answer.text}."
        )
        await orchestrator.end_of(made)
    await run_another(orchestrator, job)
    ends = [
        update for update in await orchestrator.updates(made) if update.get("state") in TERMINAL
    ]
    assert len(ends) == 1, f"A second `terminate` must not report another end; it reported {ends}."


@pytest.mark.core
async def test_terminate_of_an_unknown_job_succeeds(
    orchestrator: ContractOrchestrator, job: Make
) -> None:
    answer = await orchestrator.post("terminate", await orchestrator.start_workflow(job("true")))
    assert answer.is_success, (
        f"`terminate` of an unknown job must succeed; it got {answer.status_code}."
    )


@pytest.mark.core
async def test_a_job_terminated_before_create_never_starts(
    orchestrator: ContractOrchestrator, job: Make
) -> None:
    made = await orchestrator.start_workflow(job("sleep 300"))
    await orchestrator.post("terminate", made)
    await orchestrator.post("", made)
    await run_another(orchestrator, job)
    states = await orchestrator.states(made)
    assert "RUNNING" not in states, (
        f"A `create` that comes after its `terminate` must start nothing: {states}."
    )


@pytest.mark.core
async def test_verify_ends_an_unknown_job(orchestrator: ContractOrchestrator, job: Make) -> None:
    made = await orchestrator.start_workflow(job("true"))
    answer = await orchestrator.post("verify", made)
    assert answer.is_success, (
        f"`verify` of an unknown job must succeed; it got {answer.status_code}."
    )
    end = await orchestrator.end_of(made)
    assert end["state"] != "SUCCESS", (
        "A job that the provider does not know must not be reported as a SUCCESS."
    )
    await run_another(orchestrator, job)
    assert "RUNNING" not in await orchestrator.states(made), "`verify` must never start a job."


@pytest.mark.core
async def test_verify_does_not_change_a_running_job(
    orchestrator: ContractOrchestrator, job: Make
) -> None:
    made = await orchestrator.created(job("sleep 300"))
    await orchestrator.running(made)
    await orchestrator.post("verify", made)
    await run_another(orchestrator, job)
    states = await orchestrator.states(made)
    await orchestrator.post("terminate", made)
    assert states == ["RUNNING"], (
        f"`verify` of a job that runs must change nothing; the states were {states}."
    )


async def test_a_job_has_its_folder_and_its_files(
    orchestrator: ContractOrchestrator, job: Make
) -> None:
    made = job("")
    made["status"]["resolvedApplication"]["application"]["invocation"][2] = LAYOUT.replace(
        "{id}", made["id"]
    )
    end = await orchestrator.end_of(await orchestrator.created(made))
    broken = [MISTAKES[number] for number in numbers(end) if number in MISTAKES]
    assert not broken, broken[0]
    assert "7" in numbers(end), (
        f"The text of the end must hold the exit code 7; it was {end.get('status')!r}."
    )


async def test_an_extended_job_continues(
    orchestrator: ContractOrchestrator, job: Make, support: dict[str, Any]
) -> None:
    if not support.get("timeExtension"):
        pytest.skip("The product does not support `timeExtension`.")
    made = await orchestrator.created(job("sleep 300"))
    await orchestrator.running(made)
    item = {"job": made, "requestedTime": {"hours": 1, "minutes": 0, "seconds": 0}}
    answer = await orchestrator.post("extend", item)
    states = await orchestrator.states(made)
    await orchestrator.post("terminate", made)
    assert answer.is_success, (
        f"`extend` must succeed where `timeExtension` is supported; it got {answer.status_code}."
    )
    assert states == ["RUNNING"], f"`extend` must not disturb a job; the states were {states}."
    await orchestrator.end_of(made)


async def test_a_suspended_job_continues(
    orchestrator: ContractOrchestrator, job: Make, support: dict[str, Any]
) -> None:
    if not support.get("suspension"):
        pytest.skip("The product does not support `suspension`.")
    made = await orchestrator.created(job("sleep 300"))
    await orchestrator.running(made)
    answer = await orchestrator.post("suspend", {"job": made})
    assert answer.is_success, (
        f"`suspend` must succeed where it is supported; it got {answer.status_code}."
    )
    await orchestrator.reported(
        made, "SUSPENDED".__eq__, "A provider must report SUSPENDED after `suspend`."
    )
    answer = await orchestrator.post("unsuspend", {"job": made})
    assert answer.is_success, (
        f"`unsuspend` must succeed where it is supported; it got {answer.status_code}."
    )
    await run_another(orchestrator, job)
    states = await orchestrator.states(made)
    await orchestrator.post("terminate", made)
    assert states == ["RUNNING", "SUSPENDED", "RUNNING"], (
        f"RUNNING must follow `unsuspend`; the states were {states}."
    )
    await orchestrator.end_of(made)


async def test_follow_sends_all_output(
    orchestrator: ContractOrchestrator, job: Make, support: dict[str, Any]
) -> None:
    if not support.get("logs"):
        pytest.skip("The product does not support `logs`.")
    made = await orchestrator.created(job("echo first; echo problem >&2; sleep 1; echo last"))
    wanted = {"stdout": "first\nlast\n", "stderr": "problem\n"}
    while_running = await orchestrator.output(made)
    assert while_running == wanted, (
        f"`follow` must send all output of a job, then close; it sent {while_running}."
    )
    await orchestrator.end_of(made)
    afterwards = await orchestrator.output(made)
    assert afterwards == wanted, (
        f"`follow` must send all output after a job's end too; it sent {afterwards}."
    )
