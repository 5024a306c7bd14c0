"""Jobs of several replicas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.contract.orchestrator import ContractOrchestrator
from tests.contract.test_jobs import numbers, run_another

Make = Callable[..., dict[str, Any]]

# Each replica waits for the others in the shared folder, so none ends before all have started.
LAYOUT = """
rank=$(cat /etc/ucloud/rank.txt)
case $rank in 0|1|2) ;; *) exit 51;; esac
test "$(cat /etc/ucloud/number_of_nodes.txt)" = 3 || exit 52
for other in 0 1 2; do test -s /etc/ucloud/node-$other.txt || exit 53; done
test ! -e /etc/ucloud/node-3.txt || exit 54
test "$(cat /etc/ucloud/job_id.txt)" = "{id}" || exit 55
mkdir "/work/rank-$rank" || exit 56
for other in 0 1 2; do cat /etc/ucloud/node-$other.txt; done > "/work/rank-$rank/hosts"
touch "/work/rank-$rank/ready"
waited=0
while [ ! -e /work/rank-0/ready ] || [ ! -e /work/rank-1/ready ] || [ ! -e /work/rank-2/ready ]; do
  waited=$((waited + 1)); test $waited -lt 300 || exit 57
  sleep 0.1
done
for other in 0 1 2; do
  test "$(cat /work/rank-$other/hosts)" = "$(cat /work/rank-$rank/hosts)" || exit 58
done
echo "I am rank $rank"
exit 0
"""
MISTAKES = {
    "51": "/etc/ucloud/rank.txt must hold a rank from 0 to the number of replicas less one.",
    "52": "/etc/ucloud/number_of_nodes.txt must hold the number of replicas.",
    "53": "/etc/ucloud must hold a node-<rank>.txt for each replica.",
    "54": "/etc/ucloud must hold no node-<rank>.txt for a rank that does not exist.",
    "55": "/etc/ucloud/job_id.txt must hold the job's id, in each replica.",
    "56": "Each rank must be started once: two replicas have the same one.",
    "57": "All replicas must be started, and must share /work.",
    "58": "All replicas must find the same hosts in /etc/ucloud.",
}


async def test_replicas_know_their_ranks_and_hosts(
    orchestrator: ContractOrchestrator, job: Make, support: dict[str, Any]
) -> None:
    made = job("", replicas=3)
    made["status"]["resolvedApplication"]["application"]["invocation"][2] = LAYOUT.replace(
        "{id}", made["id"]
    )
    end = await orchestrator.end_of(await orchestrator.created(made))
    broken = [MISTAKES[number] for number in numbers(end) if number in MISTAKES]
    assert not broken, broken[0]
    assert end["state"] == "SUCCESS", (
        f"A job whose replicas all end must be a SUCCESS; it was reported as {end}."
    )
    for rank in range(3) if support.get("logs") else ():
        output = (await orchestrator.output(made, rank))["stdout"]
        assert output == f"I am rank {rank}\n", (
            f"`follow` must send the output of rank {rank} under it: {output!r}."
        )


async def test_a_job_of_replicas_runs_and_ends_once(
    orchestrator: ContractOrchestrator, job: Make
) -> None:
    made = await orchestrator.created(job("sleep 1", replicas=2))
    await orchestrator.end_of(made)
    await run_another(orchestrator, job)
    states = await orchestrator.states(made)
    assert states == ["RUNNING", "SUCCESS"], (
        f"A job of two replicas runs and ends once; the states were {states}."
    )


async def test_a_replica_that_fails_ends_the_job(
    orchestrator: ContractOrchestrator, job: Make
) -> None:
    made = await orchestrator.created(
        job('test "$(cat /etc/ucloud/rank.txt)" = 0 || exit 3; sleep 300', replicas=2)
    )
    end = await orchestrator.end_of(made)
    assert "3" in numbers(end), (
        f"The text of the end must hold the exit code 3 of rank 1; it was {end.get('status')!r}."
    )
