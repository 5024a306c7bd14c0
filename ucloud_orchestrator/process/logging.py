"""Logging to standard error as text or JSON. Each record has the id of its job."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

LogFormat = Literal["text", "json"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
_job: ContextVar[str | None] = ContextVar("job", default=None)
# At INFO these log URLs, and the URLs of sessions have tokens.
_QUIET = dict.fromkeys(("httpx", "uvicorn.access", "uvicorn.error"), logging.WARNING)


def configure_logging(level: LogLevel, log_format: LogFormat) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_JobIdFilter())
    if log_format == "json":
        fields = {"asctime": "time", "levelname": "level", "name": "logger"}
        layout = "%(asctime)s %(levelname)s %(name)s %(message)s %(job)s"
        handler.setFormatter(JsonFormatter(layout, rename_fields=fields))
    else:
        handler.setFormatter(_TextFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name, quiet_level in _QUIET.items():
        logging.getLogger(name).setLevel(quiet_level)


@contextlib.contextmanager
def job_log_context(job_id: str) -> Iterator[None]:
    """Set the job's id on every record that this task logs inside the context."""
    token = _job.set(job_id)
    try:
        yield
    finally:
        _job.reset(token)


class _JobIdFilter(logging.Filter):
    """Sets the job's id on a record: from `job_log_context`, or from Temporal's context."""

    def filter(self, record: logging.LogRecord) -> bool:
        job = _job.get()
        for context in ("temporal_workflow", "temporal_activity"):
            details = getattr(record, context, None)
            if job is None and isinstance(details, dict):
                job = details.get("workflow_id")
        record.job = job
        return True


class _TextFormatter(logging.Formatter):
    """Appends the job's id to a line that does not have it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        """Format the line, without a traceback."""
        line = super().formatMessage(record)
        job = getattr(record, "job", None)
        return f"{line} [{job}]" if job and str(job) not in line else line
