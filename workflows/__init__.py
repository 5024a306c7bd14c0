"""The life of a job: what is decided, and when. No I/O happens here."""

from workflows.job import JobWorkflow

__all__ = ["JobWorkflow"]
