"""Logs on standard error: lines for people, or JSON for collectors; each names the job that it is about."""

from __future__ import annotations

import logging
import sys
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

LogFormat = Literal["text", "json"]
_QUIET = {"httpx": logging.WARNING, "uvicorn.access": logging.WARNING}


def configure(level: str, log_format: LogFormat) -> None:
    """Let everything that this process logs go to standard error in that format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_JobOfRecord())
    if log_format == "json":
        fields = {"asctime": "time", "levelname": "level", "name": "logger"}
        layout = "%(asctime)s %(levelname)s %(name)s %(message)s %(job)s"
        handler.setFormatter(JsonFormatter(layout, rename_fields=fields))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s%(about)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name, quiet_level in _QUIET.items():
        logging.getLogger(name).setLevel(quiet_level)


class _JobOfRecord(logging.Filter):
    """Puts the job's id on every record: from Temporal's own context, or from `extra={"job": id}`."""

    def filter(self, record: logging.LogRecord) -> bool:
        job = getattr(record, "job", None)
        for context in ("temporal_workflow", "temporal_activity"):
            details = getattr(record, context, None)
            if job is None and isinstance(details, dict):
                job = details.get("workflow_id")
        record.job = job
        record.about = f" [{job}]" if job and str(job) not in record.getMessage() else ""
        return True
