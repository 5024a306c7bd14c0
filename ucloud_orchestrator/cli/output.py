"""How jobs look on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ucloud_orchestrator.models.accounting import Movement, Wallet
from ucloud_orchestrator.models.job import Job, JobState, JobUpdate

COLOURS = {
    JobState.IN_QUEUE: "yellow",
    JobState.RUNNING: "green",
    JobState.SUSPENDED: "magenta",
    JobState.CANCELING: "yellow",
    JobState.SUCCESS: "blue",
    JobState.FAILURE: "red",
    JobState.EXPIRED: "red",
}


def print_json(value: Any) -> None:
    """One line of JSON on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def wallets_table(wallets: Iterable[Wallet]) -> Table:
    """A row for each wallet."""
    table = Table("category", "available", "reserved", "spent", box=None, header_style="bold")
    for wallet in wallets:
        amounts = map(str, (wallet.available, wallet.reserved, wallet.spent))
        table.add_row(f"{wallet.category.name}@{wallet.category.provider}", *amounts)
    return table


def ledger_table(movements: Iterable[Movement]) -> Table:
    """A row for each movement."""
    table = Table(
        "time", "category", "credits", "from", "to", "job", "note", box=None, header_style="bold"
    )
    for line in movements:
        category = f"{line.category.name}@{line.category.provider}"
        accounts = (line.source.lower(), line.target.lower())
        table.add_row(
            time_text(line.at),
            category,
            str(line.amount),
            *accounts,
            line.job_id or "",
            escape(line.note or ""),
        )
    return table


def jobs_table(jobs: Iterable[Job]) -> Table:
    """A row for each job."""
    table = Table(
        "id", "state", "application", "product", "name", "created", box=None, header_style="bold"
    )
    for job in jobs:
        specification = job.specification
        table.add_row(
            job.id,
            state_text(job.status.state),
            escape(str(specification.application)),
            escape(str(specification.product)),
            escape(specification.name or ""),
            time_text(job.created_at),
        )
    return table


def job_table(job: Job) -> Table:
    """Everything about one job."""
    specification = job.specification
    project = f" in {job.owner.project}" if job.owner.project else ""
    rows = {
        "id": job.id,
        "state": state_text(job.status.state),
        "name": escape(specification.name or ""),
        "application": escape(str(specification.application)),
        "product": escape(str(specification.product)),
        "replicas": str(specification.replicas),
        "owner": escape(job.owner.created_by + project),
        "created": time_text(job.created_at),
        "started": time_text(job.status.started_at),
        "expires": time_text(job.status.expires_at),
        "output": escape((job.output.output_folder or "") if job.output else ""),
    }
    table = Table(box=None, show_header=False)
    for name, value in rows.items():
        if value:
            table.add_row(f"[bold]{name}[/bold]", value)
    for update in job.updates:
        table.add_row(time_text(update.timestamp), escape(update_text(update)))
    return table


def update_line(update: JobUpdate) -> str:
    """A state change or a text, with its time."""
    return f"{time_text(update.timestamp)}  {update_text(update)}"


def update_text(update: JobUpdate) -> str:
    """A state change or a text."""
    return "  ".join(
        part for part in (update.state and f"{update.state:<9}", update.status) if part
    )


def state_text(state: JobState) -> str:
    """The state in its colour."""
    return f"[{COLOURS[state]}]{state}[/]"


def time_text(milliseconds: int | None) -> str:
    """Local time."""
    if milliseconds is None:
        return ""
    return datetime.fromtimestamp(milliseconds / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def console() -> Console:
    """Standard output; ids are never cut, so that they can be copied from a pipe too."""
    return Console(soft_wrap=True, highlight=False)
