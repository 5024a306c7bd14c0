"""The table of `docs/how-it-works/performance.md` is that of its results."""

from __future__ import annotations

from benchmarks.report import END, PAGE, RESULTS, START, table
from benchmarks.results import Results


def test_the_page_has_the_table_of_its_results() -> None:
    shown = PAGE.read_text().partition(START)[2].partition(END)[0]
    assert shown.strip() == table(Results.read(RESULTS)).strip()
