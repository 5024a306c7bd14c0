"""The worker of a later release: one more step in the workflow `Job`, behind a patch.

`python -m tests.next_release` takes the arguments and settings of `python -m worker`.
"""

from __future__ import annotations

import logging
import os
import sys
from datetime import timedelta
from typing import Any

from temporalio import workflow

import worker
import workflows
from ucloud_orchestrator.models.messages import JobRequest
from ucloud_orchestrator.temporal.names import WORKFLOW
from workflows import JobBatchWorkflow, JobWorkflow, ProviderCheckWorkflow, versioning
from workflows.job_state import WorkflowState

PATCH = "wait-after-extension"
RELEASE = "99.0"


@workflow.defn(name=WORKFLOW)
class UnguardedJobWorkflow(JobWorkflow):
    """The new step without a patch: a mistake that stops running jobs."""

    @workflow.init
    def __init__(self, request: JobRequest | WorkflowState) -> None:
        super().__init__(request)

    @workflow.run
    async def run(self, request: JobRequest | WorkflowState) -> dict[str, str]:
        return await super().run(request)

    @workflow.update
    async def extend(self, request: Any = None) -> dict[str, Any]:
        status = await super().extend(request)
        if self._has_new_step():
            await workflow.sleep(timedelta(milliseconds=1), summary="Of the next release")
        return status

    def _has_new_step(self) -> bool:
        return True


@workflow.defn(name=WORKFLOW)
class NextJobWorkflow(UnguardedJobWorkflow):
    """The new step as a release has to bring it."""

    @workflow.init
    def __init__(self, request: JobRequest | WorkflowState) -> None:
        super().__init__(request)

    @workflow.run
    async def run(self, request: JobRequest | WorkflowState) -> dict[str, str]:
        return await super().run(request)

    def _has_new_step(self) -> bool:
        return workflow.patched(PATCH)


WORKFLOWS = (NextJobWorkflow, JobBatchWorkflow, ProviderCheckWorkflow)

if __name__ == "__main__":
    workflows.WORKFLOWS = WORKFLOWS
    versioning.PATCHES[PATCH] = RELEASE
    code = worker.main(sys.argv[1:])
    logging.shutdown()
    os._exit(code)  # decision 0006
