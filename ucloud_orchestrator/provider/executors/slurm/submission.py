"""Submission of jobs by PSI/J's executor `slurm`, with the settings of their product."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import psij
from psij.executors.batch.slurm import SlurmExecutorConfig, SlurmJobExecutor

from ucloud_orchestrator.models.job import Job
from ucloud_orchestrator.provider.executors.slurm.commands import NAME
from ucloud_orchestrator.provider.settings import SlurmOptions

POLLING_DISABLED = 10**6
"""Seconds between two polls of PSI/J: the provider polls the queue itself.

PSI/J drops Slurm's states, and marks all jobs as failed when `squeue` fails twice.
"""
KEPT_VARIABLES = {"HOME", "LANG", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "TZ", "USER"}
SLURMS_VARIABLES = ("SLURM_", "SBATCH_")
"""The variables of the provider's environment that a Slurm job gets; others may be secrets."""


class _Executor(SlurmJobExecutor):
    """PSI/J's executor with an option without a value, which its attributes do not support."""

    _NAME_ = "slurm"

    def __init__(self, requeue: bool, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
        config = SlurmExecutorConfig(
            work_directory=directory,
            queue_polling_interval=POLLING_DISABLED,
            initial_queue_polling_delay=POLLING_DISABLED,
        )
        super().__init__(config=config)
        self._option = "--requeue" if requeue else "--no-requeue"

    def get_submit_command(self, job: psij.Job, submit_file_path: Path) -> list[str]:
        # Slurm stores the environment of `sbatch` on the controller's and the nodes' disks.
        others = [
            name
            for name in os.environ
            if name not in KEPT_VARIABLES and not name.startswith(SLURMS_VARIABLES)
        ]
        without = (f"--unset={name}" for name in others)
        return ["/usr/bin/env", *without, "sbatch", self._option, str(submit_file_path.absolute())]


class _PsijJob(psij.Job):
    """A job of PSI/J with the id of our job, by which PSI/J's files are found again."""

    def __init__(self, job_id: str, specification: psij.JobSpec) -> None:
        super().__init__(specification)
        self._id = job_id


class SlurmSubmitter:
    def __init__(self, options: SlurmOptions) -> None:
        self._options = options
        self._executor: _Executor | None = None

    async def submit(self, job: Job, directory: Path, work: Path) -> None:
        """Run `sbatch`. Raises `psij.SubmitException`, also if Slurm may have accepted the job."""
        if self._executor is None:
            self._executor = _Executor(self._options.requeue, _psij_directory(directory))
        psij_job = _PsijJob(job.id, self._specification(job, directory, work))
        await asyncio.to_thread(self._executor.submit, psij_job)

    def time_limit(self, job: Job) -> timedelta:
        """Return the time limit for Slurm.

        It has a margin, so that the orchestrator ends the job first.
        """
        allocation = job.specification.time_allocation
        milliseconds = allocation.milliseconds if allocation else 365 * 24 * 3600 * 1000
        return timedelta(milliseconds=milliseconds, seconds=self._options.time_margin)

    def _specification(self, job: Job, directory: Path, work: Path) -> psij.JobSpec:
        product = (
            job.status.resolved_product if isinstance(job.status.resolved_product, dict) else {}
        )
        options = self._options
        cores = options.cores or product.get("cpu") or 1
        memory = options.memory or (product.get("memoryInGigs") or 0) * 1024
        resources = psij.ResourceSpecV1(
            node_count=job.specification.replicas,
            processes_per_node=1,
            cpu_cores_per_process=cores,
            gpu_cores_per_process=product.get("gpu") or 0 if options.gpus is None else options.gpus,
            memory=memory * 1024**2 if memory else None,
        )
        # PSI/J does not pass its own name of a job to Slurm.
        custom: dict[str, object] = {"slurm.job-name": NAME + job.id}
        if options.qos:
            custom["slurm.qos"] = options.qos
        attributes = psij.JobAttributes(
            duration=self.time_limit(job),
            queue_name=options.partition,
            account=options.account,
            custom_attributes=custom,
        )
        return psij.JobSpec(
            executable="/bin/sh",
            arguments=[str(directory / "batch.sh"), str(directory), str(cores)],
            directory=work,
            resources=resources,
            attributes=attributes,
            launcher="single",
        )


def forget(job_id: str, directory: Path, slurm_job_ids: Iterable[int]) -> None:
    """Delete PSI/J's files of a job, which are named by our job id or by Slurm's."""
    names = [f"{job_id}.job", f"{job_id}_launcher.log"]
    suffixes = (".out", ".ec", ".nodefile")
    names += [f"{number}{suffix}" for number in slurm_job_ids for suffix in suffixes]
    for name in names:
        (_psij_directory(directory) / _Executor._NAME_ / name).unlink(missing_ok=True)


def _psij_directory(directory: Path) -> Path:
    """Return PSI/J's directory, by the directory of any job."""
    return directory.parent.parent / "psij"
