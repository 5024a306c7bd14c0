"""Renders jobs and wallets for a terminal, or as JSON."""

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
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def wallets_table(wallets: Iterable[Wallet]) -> Table:
    table = Table("category", "available", "reserved", "spent", box=None, header_style="bold")
    for wallet in wallets:
        amounts = map(str, (wallet.available, wallet.reserved, wallet.spent))
        table.add_row(f"{wallet.category.name}@{wallet.category.provider}", *amounts)
    return table


def ledger_table(movements: Iterable[Movement]) -> Table:
    table = Table(
        "time", "category", "credits", "from", "to", "job", "note", box=None, header_style="bold"
    )
    for movement in movements:
        category = f"{movement.category.name}@{movement.category.provider}"
        accounts = (movement.source.lower(), movement.target.lower())
        table.add_row(
            time_text(movement.at),
            category,
            str(movement.amount),
            *accounts,
            movement.job_id or "",
            escape(movement.note or ""),
        )
    return table


def jobs_table(jobs: Iterable[Job]) -> Table:
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
    return f"{time_text(update.timestamp)}  {update_text(update)}"


def update_text(update: JobUpdate) -> str:
    return "  ".join(
        part for part in (update.state and f"{update.state:<9}", update.status) if part
    )


def state_text(state: JobState) -> str:
    return f"[{COLOURS[state]}]{state}[/]"


def time_text(milliseconds: int | None) -> str:
    """Render a time in the local time zone; empty for None."""
    if milliseconds is None:
        return ""
    return datetime.fromtimestamp(milliseconds / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def console() -> Console:
    """Return a console for standard output that never cuts ids."""
    return Console(soft_wrap=True, highlight=False)
