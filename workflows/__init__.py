"""What is decided, and when: the life of a job, of a batch, and the check of a provider.

No I/O happens here.
"""

from workflows.batch import JobBatchWorkflow
from workflows.job import JobWorkflow
from workflows.provider_check import ProviderCheckWorkflow

__all__ = ["JobBatchWorkflow", "JobWorkflow", "ProviderCheckWorkflow"]
