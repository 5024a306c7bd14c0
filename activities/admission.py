"""Admission: whether a job may exist, decided with everything that it needs, in one step without the network."""

from __future__ import annotations

from collections.abc import Callable

from temporalio import activity

from activities.refusal import refusal
from catalog import Catalog
from models.command_line import build_command_line, build_environment
from models.errors import ErrorCode, Finding
from models.messages import Admission, AdmissionRequest
from models.verification import complete, verify
from store import Archive


class AdmissionActivities:
    """Local activities; they read the catalog and the store, and never call a provider."""

    def __init__(self, catalog: Callable[[], Catalog], archive: Archive) -> None:
        self._catalog = catalog
        self._archive = archive

    @activity.defn
    async def admit(self, request: AdmissionRequest) -> Admission:
        """Verify the whole request and fill in its defaults.

        Raises an `ApplicationError` of type `VERIFICATION_FAILED` with every finding in its details, or
        `DUPLICATE_JOB` if a job of this id has already ended.
        """
        if await self._archive.contains(request.job_id):
            raise refusal(ErrorCode.DUPLICATE_JOB, f"A job with the id {request.job_id} has already ended.")
        catalog = self._catalog()
        specification = request.specification
        application = catalog.application(specification.application)
        tool = catalog.tool(application.tool) if application else None
        product = catalog.product(specification.product)
        support = catalog.support(specification.product)
        findings = verify(specification, application, tool, product, support)
        if product is not None and catalog.provider(specification.product.provider) is None:
            findings.append(
                Finding(field="product.provider", message=f"There is no provider {specification.product.provider}.")
            )
        if findings or application is None or tool is None or product is None:
            raise refusal(ErrorCode.VERIFICATION_FAILED, " ".join(finding.message for finding in findings), findings)
        completed = complete(specification, application, tool)
        # Built here only to be sure that it can be: the provider builds its own from the same rules.
        build_command_line(application, completed.parameters)
        build_environment(application, completed.parameters)
        return Admission(specification=completed, price_per_unit=product.price_per_unit)
