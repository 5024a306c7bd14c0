"""The steps of a job on Prefect, as a script in an environment of its own.

It imports nothing of ours. It reads lines of JSON: first the settings, then one load a line. It
writes one line for each load.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import httpx
from prefect import flow, runtime, task
from prefect.input import receive_input, send_input

UPDATES = ({"state": "RUNNING"}, {"state": "SUCCESS"})
POLL_INTERVAL = 0.1
"""Seconds between two polls for a message. Nothing wakes a waiting flow; the default is 10."""
TABLE = (
    "CREATE TABLE IF NOT EXISTS jobs (id VARCHAR(64) PRIMARY KEY, owner VARCHAR(64) NOT NULL, "
    "state VARCHAR(16) NOT NULL, document TEXT NOT NULL)"
)
settings: dict[str, Any] = json.loads(sys.stdin.readline())
http = httpx.AsyncClient(headers={"Authorization": settings["authorization"]}, timeout=60)
accepted_jobs: dict[str, asyncio.Future[Any]] = {}
"""Resolved when the job is accepted; a flow has no event for other programs."""


@contextmanager
def transaction() -> Iterator[sqlite3.Connection]:
    with closing(
        sqlite3.connect(settings["store"], timeout=30, isolation_level=None)
    ) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("BEGIN IMMEDIATE")
        with connection:
            yield connection


def _record(job_id: str, document: dict[str, Any]) -> None:
    with transaction() as connection:
        # Prefect keeps its own record of a task elsewhere, so a task may be repeated after its
        # transaction.
        if not connection.execute("SELECT state FROM jobs WHERE id = ?", [job_id]).fetchone():
            connection.execute(
                "INSERT INTO jobs VALUES (?, 'alice', 'IN_QUEUE', ?)",
                [job_id, json.dumps(document)],
            )


def _settle(job_id: str, state: str) -> None:
    with transaction() as connection:
        connection.execute(
            "UPDATE jobs SET state = ? WHERE id = ? AND state = 'IN_QUEUE'", [state, job_id]
        )


@task(persist_result=True, retries=10, retry_delay_seconds=1)
async def record(job_id: str, document: dict[str, Any]) -> bool:
    await asyncio.to_thread(_record, job_id, document)
    return True


@task(persist_result=True, retries=10, retry_delay_seconds=1)
async def submit(job_id: str, document: dict[str, Any]) -> bool:
    (
        await http.post(settings["provider"], json={"items": [document | {"id": job_id}]})
    ).raise_for_status()
    return True


@task(persist_result=True, retries=10, retry_delay_seconds=1)
async def settle(job_id: str, state: str) -> bool:
    await asyncio.to_thread(_settle, job_id, state)
    return True


@flow(persist_result=True, validate_parameters=False)
async def job(job_id: str, document: dict[str, Any]) -> str:
    await record(job_id, document)
    await submit(job_id, document)
    accepted_jobs[job_id].set_result(runtime.flow_run.id)
    state, seen = "", 0
    async for update in receive_input(dict, timeout=600, poll_interval=POLL_INTERVAL):
        state, seen = update["state"], seen + 1
        if seen == len(UPDATES):
            break
    await settle(job_id, state)
    return state


async def run(prefix: str, concurrent: int, jobs: int) -> dict[str, Any]:
    """Run the jobs; returns the seconds of all, and the milliseconds until each was accepted."""
    accepted: list[float] = []
    numbers = iter(range(jobs))

    async def one(number: int) -> None:
        job_id = f"{prefix}-{number}"
        begun = time.perf_counter()
        is_accepted = accepted_jobs[job_id] = asyncio.get_running_loop().create_future()
        running = asyncio.create_task(job(job_id, settings["document"]))
        await asyncio.wait([running, is_accepted], return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            raise RuntimeError(f"The job {job_id} ended before it was accepted: {await running}.")
        accepted.append((time.perf_counter() - begun) * 1000)
        for update in UPDATES:
            await send_input(update, flow_run_id=is_accepted.result())
        if await running != "SUCCESS":
            raise RuntimeError(f"The job {job_id} did not succeed.")

    async def take_numbers() -> None:
        for number in numbers:
            await one(number)

    start = time.perf_counter()
    await asyncio.gather(*(take_numbers() for _ in range(min(concurrent, jobs))))
    return {"seconds": time.perf_counter() - start, "accepted": accepted}


async def main() -> None:
    with transaction() as connection:
        connection.execute(TABLE)
    sys.stdout.write(json.dumps({"event": "ready"}) + "\n")
    sys.stdout.flush()
    while line := await asyncio.to_thread(sys.stdin.readline):
        measured = await run(**json.loads(line))
        sys.stdout.write(json.dumps(measured) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
