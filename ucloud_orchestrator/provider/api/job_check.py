"""Checks of a job before the provider accepts it."""

from __future__ import annotations

import asyncio

from pydantic import ValidationError

from ucloud_orchestrator.models.base import error_messages
from ucloud_orchestrator.models.command_line import build_command_line, build_environment
from ucloud_orchestrator.models.errors import ErrorCode
from ucloud_orchestrator.models.job import Job
from ucloud_orchestrator.provider.errors import InvalidPath, RequestRejected
from ucloud_orchestrator.provider.jobs.database import JobDatabase
from ucloud_orchestrator.provider.jobs.preparation import resolved
from ucloud_orchestrator.provider.jobs.reconciler import Reconciler
from ucloud_orchestrator.provider.network.networks import peers_of
from ucloud_orchestrator.provider.settings import ProviderSettings


class JobCheck:
    """Checks a job against the products, the drives and the peers of this provider."""

    def __init__(
        self, settings: ProviderSettings, database: JobDatabase, reconciler: Reconciler
    ) -> None:
        self._products = {entry.product: entry.support for entry in settings.offered_products}
        self._database = database
        self._reconciler = reconciler

    async def __call__(self, job: Job) -> None:
        """Raises `RequestRejected` with the first mistake."""
        await asyncio.to_thread(self._check_product, job)  # a drive may hang
        for peer in peers_of(job):
            await self._check_peer(job, peer.hostname, peer.job_id)

    def _check_product(self, job: Job) -> None:
        product = job.specification.product
        support = self._products.get(product)
        if support is None:
            raise RequestRejected(f"There is no product {product} here.")
        try:
            application, tool = resolved(job)
            build_command_line(application, job.specification.parameters)
            build_environment(application, job.specification.parameters)
            self._reconciler.drives.mounts(job)
        except ValidationError as error:
            raise RequestRejected(
                f"The job's resolved application is not usable: {' '.join(error_messages(error))}"
            ) from error
        except (InvalidPath, ValueError) as error:
            raise RequestRejected(str(error)) from error
        if not tool.backend.support_in(support).enabled:
            why = f"{product} does not run applications of type {tool.backend}."
            raise RequestRejected(why, code=ErrorCode.FEATURE_NOT_SUPPORTED_BY_PROVIDER)
        maximum = self._reconciler.executor_of(job).maximum_replicas
        if maximum is not None and job.specification.replicas > maximum:
            raise RequestRejected(f"A job of {product} has {maximum} replicas at most.")

    async def _check_peer(self, job: Job, hostname: str, peer_id: str) -> None:
        record = await self._database.find(peer_id)
        if record is None or record.has_ended:
            raise RequestRejected(
                f"The peer {hostname} (job {peer_id}) does not run at this provider."
            )
        executor_of = self._reconciler.executor_of
        if executor_of(record.job).assigns_hosts != executor_of(job).assigns_hosts:
            ours, theirs = job.specification.product, record.job.specification.product
            raise RequestRejected(
                f"The peer {hostname} (job {peer_id}) cannot be reached from {ours}: "
                f"choose another that runs where {theirs} does."
            )
