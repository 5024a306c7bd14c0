"""The figures of `docs/how-it-works/performance.md` are those that were measured."""

from __future__ import annotations

from benchmarks.report import END, FIGURES, PAGE, START, table
from benchmarks.results import Results


def test_the_page_has_the_table_of_its_figures() -> None:
    shown = PAGE.read_text().partition(START)[2].partition(END)[0]
    assert shown.strip() == table(Results.read(FIGURES)).strip()
