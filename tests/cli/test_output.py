"""Render users' texts verbatim in tables."""

from __future__ import annotations

import pytest
from rich.console import Console
from rich.table import Table

from tests.builders import shell_job
from ucloud_orchestrator.cli.output import job_table, ledger_table
from ucloud_orchestrator.models import Job
from ucloud_orchestrator.models.accounting import Account, Movement
from ucloud_orchestrator.models.product import ProductCategory

TEXTS = ["[ticket 12] refund", "refund [/x]", r"\[/x]", "[bold]no[/bold]", r"C:\[x]\\"]


def render(table: Table) -> str:
    console = Console(width=1000, soft_wrap=True)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


@pytest.mark.parametrize("text", TEXTS)
def test_brackets_are_not_markup(text: str) -> None:
    movement = Movement(
        at=1,
        category=ProductCategory(name="cpu", provider="local"),
        amount=1,
        source=Account.GRANTED,
        target=Account.AVAILABLE,
        note=text,
    )
    assert text in render(ledger_table([movement]))
    job = Job.model_validate(shell_job("true") | {"updates": [{"timestamp": 1, "status": text}]})
    assert text in render(job_table(job))
