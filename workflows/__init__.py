"""The life of a job and of a batch, as Temporal workflows, and the pure rules of the lifecycle."""

from workflows.batch import JobBatchWorkflow
from workflows.job import JobWorkflow

__all__ = ["JobBatchWorkflow", "JobWorkflow"]
