"""A copy of this release with a change of the workflow `Job`, and of the tables, as the next one
may bring.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ucloud_orchestrator.store.schema import MIGRATIONS

ROOT = Path(__file__).parent.parent
COPIED = ("activities", "client", "tests", "ucloud_orchestrator", "workflows")
PATCH = "of-the-next-release"
RELEASE = "99.0"
"""What brings the patch."""

PLACE = """        self._accepted = True
        self._show()
"""
CHANGE = 'await workflow.sleep(timedelta(milliseconds=1), summary="Of the next release")\n'
TABLE_END = '}\n"""What the code asks'
MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision = "next"
down_revision = "{head}"


def upgrade() -> None:
    op.add_column("finished_jobs", sa.Column("of_the_next_release", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("finished_jobs", "of_the_next_release")
"""


def copy(folder: Path, is_guarded: bool = True) -> Path:
    """The folder of the next release; unless it is guarded, its change breaks every job that has
    begun before.
    """
    for room in COPIED:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("worker.py", "pyproject.toml"):
        shutil.copy(ROOT / file, folder)
    guard = f'        if workflow.patched("{PATCH}"):\n            ' if is_guarded else "        "
    _replace(folder / "workflows" / "job.py", PLACE, PLACE + guard + CHANGE)
    _replace(
        folder / "workflows" / "versioning.py",
        TABLE_END,
        f'    "{PATCH}": "{RELEASE}",\n{TABLE_END}',
    )
    head = MIGRATIONS.revisions()[-1]
    (folder / "ucloud_orchestrator" / "store" / "migrations" / "versions" / "next.py").write_text(
        MIGRATION.format(head=head)
    )
    return folder


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, f"{file} has changed"
    file.write_text(text.replace(old, new))
