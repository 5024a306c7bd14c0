"""Compare the answers to clients with the store, the provider, the processes and the logs."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.chaos.processes import ChaosStack, processes_below
from tests.chaos.workload import ClientRecords
from tests.store.ledger_assertions import check_ledger
from tests.waiting import eventually
from ucloud_orchestrator.store import Archive

LAST_CHECKS = 90.0
"""Seconds within which the scheduled checks, one every 20 s, have stopped orphans."""
HELD = ("live_jobs", "bindings", "reservations")
RECORD = re.compile(r"\d{4}-\d\d-\d\d |Traceback |end$")
CHAINED = ("The above exception", "During handling")
EXPLAINED = re.compile(
    r"""
    (temporalio\.exceptions\.)?ApplicationError:\ [A-Z_]+:\ (?!\ )  # in a sentence
    | ucloud_orchestrator\.store\.errors\.StoreRejected:
    | asyncpg\.exceptions\.\w+Error:
    | sqlalchemy\.exc\.(DBAPIError|InterfaceError|OperationalError):  # the database is away
    # It is going away
    | sqlalchemy\.exc\.InternalError:\ .*\ another\ operation\ \(2\)\ is\ in\ progress
    | (ConnectionRefusedError|ConnectionResetError|TimeoutError|OSError)\b
    | asyncio\.exceptions\.CancelledError:\ Activity\ cancelled  # an attempt that took too long
    | temporalio\.service\.RPCError:
    | client\.errors\.Unreachable:
    """,
    re.VERBOSE,
)
"""The last lines of tracebacks that a fault or a rejection explains."""


async def find_broken_promises(
    stack: ChaosStack, engine: AsyncEngine, records: ClientRecords
) -> list[str]:
    """Return a sentence for each broken promise."""
    broken = list(records.contradictions)
    for what, gone in {
        "a process of a job runs": lambda: not processes_below(stack.folder),
        "a job's folder is left": lambda: not list((stack.folder / "provider" / "jobs").iterdir()),
    }.items():
        try:
            await eventually(gone, LAST_CHECKS)
        except AssertionError:
            broken.append(f"After {LAST_CHECKS:.0f} s {what}: {_leftovers(stack)}")
    archive = Archive(engine)
    for job_id, kind in records.accepted.items():
        job = await archive.retrieve(job_id)
        if job is None:
            broken.append(f"{kind} {job_id} was accepted and is not in the archive.")
        elif (
            not job.status.state.is_terminal
            or records.ended.get(job_id, job.status.state) is not job.status.state
        ):
            broken.append(
                f"{kind} {job_id} is archived as {job.status.state}, its client got "
                f"{records.ended.get(job_id)}."
            )
        elif sum(update.state.is_terminal for update in job.updates if update.state) != 1:
            broken.append(f"{kind} {job_id} has not exactly one terminal update.")
    for job_id, code in records.rejected.items():
        if await archive.retrieve(job_id) is not None:
            broken.append(f"{job_id} was rejected ({code}) and is in the archive.")
    broken += _starts(stack.marks, records)
    broken += await _still_held(engine)
    broken += _at_provider(stack.folder / "provider")
    broken += [f"{name}: {line}" for name, line in unexplained(stack.folder / "logs")]
    return broken


def _starts(marks: Path, records: ClientRecords) -> list[str]:
    broken = []
    starts = Counter(marks.read_text().splitlines())
    for mark, count in starts.items():
        job_id = mark.split(" ")[0]
        if count > 1:
            broken.append(f"The replica {mark} was started {count} times.")
        if job_id not in records.accepted:
            broken.append(f"{job_id} was started, and no client has its id.")
    for job_id, kind in records.accepted.items():
        ranks = sum(mark.split(" ")[0] == job_id for mark in starts)
        if kind != "cancelled" and ranks != (3 if kind == "replicas" else 1):
            broken.append(f"{kind} {job_id} was started on {ranks} ranks.")
    return broken


async def _still_held(engine: AsyncEngine) -> list[str]:
    broken = []
    try:
        await check_ledger(engine)
    except AssertionError as error:
        broken.append(f"The ledger does not add up: {error}")
    async with engine.connect() as connection:
        for table in HELD:
            rows = (await connection.execute(text(f"SELECT * FROM {table}"))).all()
            broken += [f"{table} still holds {row}" for row in rows]
    return broken


def _at_provider(folder: Path) -> list[str]:
    database = sqlite3.connect(folder / "provider.sqlite")
    left = database.execute(
        "SELECT 'a live job', id FROM jobs WHERE phase != 'ended' "
        "UNION SELECT 'an undelivered update', job_id FROM reports "
        "UNION SELECT 'an undelivered charge', job_id FROM due_charges"
    ).fetchall()
    database.close()
    return [f"The provider still has {what} of {job_id}." for what, job_id in left]


def _leftovers(stack: ChaosStack) -> str:
    folders = [file.name for file in (stack.folder / "provider" / "jobs").iterdir()]
    return (
        f"processes {[process.pid for process in processes_below(stack.folder)]}, folders {folders}"
    )


def unexplained(logs: Path) -> list[tuple[str, str]]:
    """Return the last lines of tracebacks in the logs that no fault explains."""
    found = []
    for file in sorted(logs.glob("*.log")):
        inside, end = False, ""
        for line in [*file.read_text(errors="replace").splitlines(), "end"]:
            if line.startswith(CHAINED):
                inside, end = True, ""
            elif end and RECORD.match(line):  # until then it is the rest of the error's own text
                if not EXPLAINED.match(end):
                    found.append((file.name, end[:300]))
                end = ""
            if line.startswith("Traceback "):
                inside = True
            elif inside and line and not line.startswith((" ", *CHAINED)):
                inside, end = False, line
    return found
