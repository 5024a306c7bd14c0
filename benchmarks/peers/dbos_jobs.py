"""The steps of a job on DBOS, as a script in an environment of its own.

It imports nothing of ours. It reads lines of JSON: first the settings, then one load a line. It
writes one line for each load.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import httpx
import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, SetWorkflowID, SQLAlchemyDatasource

UPDATES = ({"state": "RUNNING"}, {"state": "SUCCESS"})
MOST_AT_ONCE = 128
TABLE = (
    "CREATE TABLE IF NOT EXISTS jobs (id VARCHAR(64) PRIMARY KEY, owner VARCHAR(64) NOT NULL, "
    "state VARCHAR(16) NOT NULL, document TEXT NOT NULL)"
)
settings: dict[str, Any] = json.loads(sys.stdin.readline())
http = httpx.Client(
    headers={"Authorization": settings["authorization"]}, limits=httpx.Limits(max_connections=None)
)


def sqlite_engine(url: str, synchronous: str) -> sa.Engine:
    """Return an engine as DBOS makes it, but with a write-ahead log."""
    engine = sa.create_engine(url, pool_size=20, max_overflow=MOST_AT_ONCE)

    @sa.event.listens_for(engine, "connect")
    def set_up(connection: Any, _: Any) -> None:
        connection.isolation_level = "IMMEDIATE"
        connection.execute("PRAGMA busy_timeout=30000")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")

    return engine


def connect() -> SQLAlchemyDatasource:
    config: DBOSConfig = {
        "name": "peer",
        "system_database_url": settings["system"],
        "max_executor_threads": MOST_AT_ONCE,
        "notification_listener_polling_interval_sec": 0.01,
        "log_level": "ERROR",
    }
    engine = None
    if settings["tuned"] and settings["system"].startswith("sqlite"):
        config["system_database_engine"] = sqlite_engine(settings["system"], "NORMAL")
        engine = sqlite_engine(settings["store"], "FULL")
    DBOS(config=config)
    store = SQLAlchemyDatasource.create(settings["store"], engine=engine)
    with store.engine.begin() as connection:
        connection.execute(sa.text(TABLE))
    return store


store = connect()
isolation = {
    "isolation_level": "SERIALIZABLE"
    if settings["store"].startswith("sqlite")
    else "READ COMMITTED"
}


def record(job_id: str, document: dict[str, Any]) -> None:
    """Insert the job unless it exists, in one SQL transaction with DBOS' record of the step."""
    session = store.sql_session()
    if session.execute(sa.text("SELECT state FROM jobs WHERE id = :id"), {"id": job_id}).first():
        raise ValueError(f"The job {job_id} is there already.")
    session.execute(
        sa.text(
            "INSERT INTO jobs (id, owner, state, document) VALUES (:id, 'alice', 'IN_QUEUE', "
            ":document)"
        ),
        {"id": job_id, "document": json.dumps(document)},
    )


def settle(job_id: str, state: str) -> None:
    statement = sa.text("UPDATE jobs SET state = :state WHERE id = :id AND state = 'IN_QUEUE'")
    changed = cast(
        "sa.CursorResult[Any]",
        store.sql_session().execute(statement, {"id": job_id, "state": state}),
    )
    if changed.rowcount != 1:
        raise ValueError(f"The job {job_id} is not there, or has ended already.")


@DBOS.step(retries_allowed=True, max_attempts=10)
def submit(job_id: str, document: dict[str, Any]) -> None:
    http.post(settings["provider"], json={"items": [document | {"id": job_id}]}).raise_for_status()


@DBOS.workflow()
def job(document: dict[str, Any]) -> str:
    job_id = DBOS.workflow_id
    assert job_id is not None
    store.run_tx_step(isolation, record, job_id, document)
    submit(job_id, document)
    DBOS.set_event("accepted", True)
    state = ""
    for _ in UPDATES:
        state = DBOS.recv(timeout_seconds=600)["state"]
    store.run_tx_step(isolation, settle, job_id, state)
    return state


def run(prefix: str, concurrent: int, jobs: int) -> dict[str, Any]:
    """Run the jobs; returns the seconds of all, and the milliseconds until each was accepted."""
    accepted: list[float] = []

    def one(number: int) -> None:
        job_id = f"{prefix}-{number}"
        begun = time.perf_counter()
        with SetWorkflowID(job_id):
            handle = DBOS.start_workflow(job, settings["document"])
        if not DBOS.get_event(job_id, "accepted", timeout_seconds=600):
            raise RuntimeError(f"The job {job_id} was not accepted.")
        accepted.append((time.perf_counter() - begun) * 1000)
        for update in UPDATES:
            DBOS.send(job_id, update)
        if handle.get_result() != "SUCCESS":
            raise RuntimeError(f"The job {job_id} did not succeed.")

    start = time.perf_counter()
    with ThreadPoolExecutor(concurrent) as threads:
        list(threads.map(one, range(jobs)))
    return {"seconds": time.perf_counter() - start, "accepted": accepted}


def main() -> None:
    DBOS.launch()
    sys.stdout.write(json.dumps({"event": "ready"}) + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run(**json.loads(line))) + "\n")
        sys.stdout.flush()
    DBOS.destroy()


if __name__ == "__main__":
    main()
