"""Preparation of a job: its directories, its network and the command of each rank."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ucloud_orchestrator.models.application import Application, Tool
from ucloud_orchestrator.models.command_line import build_command_line, build_environment
from ucloud_orchestrator.models.job import Job
from ucloud_orchestrator.provider.executors.base import Executor, ReplicaStart
from ucloud_orchestrator.provider.executors.replica import ReplicaPhase
from ucloud_orchestrator.provider.executors.slurm import peers
from ucloud_orchestrator.provider.files import output_files
from ucloud_orchestrator.provider.files.drives import Drives, Mount
from ucloud_orchestrator.provider.jobs.directories import JobDirectories
from ucloud_orchestrator.provider.network.networks import NetworkAttachment, Networks
from ucloud_orchestrator.provider.sandbox import bubblewrap
from ucloud_orchestrator.provider.settings import ProviderSettings


class JobPreparation:
    """Prepares the replicas of jobs. Idempotent."""

    def __init__(
        self,
        settings: ProviderSettings,
        directories: JobDirectories,
        drives: Drives,
        networks: Networks,
    ) -> None:
        self._system_folders = settings.system_folders
        self._directories = directories
        self._drives = drives
        self._networks = networks

    async def prepare(self, job: Job, executor: Executor) -> list[ReplicaStart]:
        """Return the starts of the ranks that have not begun.

        Raises `InvalidPath`, `OutputError`, `NetworkNotFound`, `NetworkError`, `OSError`.
        """
        mounts = await asyncio.to_thread(self._make_directories, job)
        if not executor.assigns_hosts:
            await self._networks.create(job)
        replicas = executor.observe(job).replicas
        ranks = [
            rank
            for rank, replica in enumerate(replicas)
            if replica.phase is ReplicaPhase.NOT_STARTED
        ]
        return await asyncio.to_thread(
            lambda: [self._replica(job, rank, executor, mounts) for rank in ranks]
        )

    def _make_directories(self, job: Job) -> dict[str, Mount]:
        """Make its output and working directories, with its inputs; returns the mounts."""
        mounts = self._drives.mounts(job)
        self._directories.make_output(job.id)
        bubblewrap.prepare_work(self._directories.work(job.id), mounts)
        return mounts

    def _replica(
        self, job: Job, rank: int, executor: Executor, mounts: dict[str, Mount]
    ) -> ReplicaStart:
        application, _ = resolved(job)
        ucloud = self._write_ucloud_files(job, rank, executor)
        environment = {
            "PATH": bubblewrap.PATH,
            "HOME": "/work",
            "LANG": "C.UTF-8",
            "UCLOUD_JOB_ID": job.id,
            "UCLOUD_RANK": str(rank),
        }
        licenses = job.status.resolved_licenses or {}
        environment |= build_environment(
            application, job.specification.parameters, environment, licenses
        )
        # In Slurm the network is the node's own.
        if executor.assigns_hosts:
            network = NetworkAttachment(etc=peers.etc(job, self._directories.control(job.id, rank)))
        else:
            network = self._networks.attachment(job.id, rank)
        spec = bubblewrap.SandboxSpec(
            work=self._directories.work(job.id),
            ucloud=ucloud,
            mounts=mounts,
            environment=environment,
            changes_directory=application.container.change_working_directory,
            system_folders=self._system_folders,
            network=network.words,
            etc=network.etc,
        )
        program = build_command_line(application, job.specification.parameters, licenses)
        command = bubblewrap.sandbox_command([*executor.prefix, *program], spec)
        output = self._directories.output(job.id)
        stdout, stderr = (
            output_files.make_log(output / f"{stream}-{rank}.txt")
            for stream in ("stdout", "stderr")
        )
        return ReplicaStart(rank, command, ucloud, stdout, stderr)

    def _write_ucloud_files(self, job: Job, rank: int, executor: Executor) -> Path:
        directory = self._directories.control(job.id, rank) / "ucloud"
        directory.mkdir(parents=True, exist_ok=True)
        addresses = [] if executor.assigns_hosts else self._networks.addresses(job)
        lines = {f"node-{other}.txt": address for other, address in enumerate(addresses)}
        lines |= {
            "rank.txt": str(rank),
            "cores.txt": str(_cores(job)),
            "number_of_nodes.txt": str(job.specification.replicas),
            "job_id.txt": job.id,
        }
        for name, line in lines.items():
            file = directory / name
            # A file that is right stays: a running replica may be reading it.
            if not file.exists() or file.read_text() != line + "\n":
                file.write_text(line + "\n")
        return directory


def resolved(job: Job) -> tuple[Application, Tool]:
    """Return the application and the tool of a job, which the orchestrator has resolved.

    Raises `pydantic.ValidationError`.
    """
    document = (
        job.status.resolved_application if isinstance(job.status.resolved_application, dict) else {}
    )
    return Application.model_validate(document.get("application")), Tool.model_validate(
        document.get("tool")
    )


def _cores(job: Job) -> int:
    product = job.status.resolved_product
    cores = product.get("cpu") if isinstance(product, dict) else None
    return cores if isinstance(cores, int) else 1
