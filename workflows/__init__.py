"""Decides what happens to jobs, batches and providers, and when. No I/O happens here.

`worker.py` registers `WORKFLOWS`; other packages use names of workflows, not these classes.
"""

from workflows.batch import JobBatchWorkflow
from workflows.job import JobWorkflow
from workflows.provider_check import ProviderCheckWorkflow

__all__ = ["WORKFLOWS", "JobBatchWorkflow", "JobWorkflow", "ProviderCheckWorkflow"]

WORKFLOWS: tuple[type, ...] = (JobWorkflow, JobBatchWorkflow, ProviderCheckWorkflow)
