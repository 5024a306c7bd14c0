"""Admission: whether a job may exist, decided with everything that it needs, in one step without the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.refusal import refusal, refusals_of_the_store
from activities.surroundings import FindPeer, surroundings_of
from catalog import Catalog
from models.command_line import build_command_line, build_environment
from models.errors import ErrorCode, Finding
from models.holdings import Holding, holding_of
from models.job import JobSpecification
from models.limits import size_findings
from models.messages import Admission, AdmissionRequest, BatchAdmission, BatchAdmissionRequest
from models.money import Price
from models.product import Product
from models.resource_verification import verify_resources, with_forced_read_only
from models.verification import complete, verify
from store import Holdings

MAXIMUM_ID_LENGTH = 64
MAXIMUM_NAME_LENGTH = 255
"""Characters of a column of the store."""
DEFAULT_ALLOCATION = 3_600_000
"""Milliseconds that are paid for when neither the job nor its tool names a time: an hour."""


class AdmissionActivities:
    """Local activities; they read the catalog, the drives and the store, and never call a provider."""

    def __init__(self, catalog: Callable[[], Catalog], holdings: Holdings, find_peer: FindPeer) -> None:
        self._catalog = catalog
        self._holdings = holdings
        self._find_peer = find_peer

    @activity.defn
    async def admit(self, request: AdmissionRequest) -> Admission:
        """Verify the whole request, fill in its defaults, and hold what it needs.

        Raises an `ApplicationError` with every finding in its details. Its type is the code of the first, such as
        `VERIFICATION_FAILED`, `RESOURCE_IN_USE`, `INSUFFICIENT_FUNDS` or `DUPLICATE_JOB`.
        """
        admission, holding = await self._examine(request)
        with refusals_of_the_store():
            await self._holdings.take([holding])
        return admission

    @activity.defn
    async def admit_batch(self, request: BatchAdmissionRequest) -> BatchAdmission:
        """Admit all jobs or none. The findings of each name its place in the batch."""
        examined: list[tuple[Admission, Holding]] = []
        findings = size_findings([job.specification for job in request.jobs])
        for index, job in enumerate(request.jobs):
            try:
                examined.append(await self._examine(job))
            except ApplicationError as error:
                findings += [_in_batch(index, finding) for finding in error.details[0]]
        if findings:
            raise refusal(_common_code(findings), " ".join(finding.message for finding in findings), findings)
        with refusals_of_the_store():
            await self._holdings.take([holding for _, holding in examined])
        return BatchAdmission(jobs=[admission for admission, _ in examined])

    async def _examine(self, request: AdmissionRequest) -> tuple[Admission, Holding]:
        catalog = self._catalog()
        specification = request.specification
        application = catalog.application(specification.application)
        tool = catalog.tool(application.tool) if application else None
        product = catalog.product(specification.product)
        support = catalog.support(specification.product)
        around = await surroundings_of(catalog, self._find_peer, request.owner, specification)
        findings = [
            *_name_findings(request),
            *size_findings([specification]),
            *verify(specification, application, tool, product, support),
            *verify_resources(request.owner, specification, application, around),
        ]
        if product is not None and catalog.provider(specification.product.provider) is None:
            findings.append(
                Finding(field="product.provider", message=f"There is no provider {specification.product.provider}.")
            )
        if findings or application is None or tool is None or product is None:
            raise refusal(_common_code(findings), " ".join(finding.message for finding in findings), findings)
        completed = with_forced_read_only(request.owner, complete(specification, application, tool), around)
        # Built here only to be sure that it can be: the provider builds its own from the same rules.
        build_command_line(application, completed.parameters)
        build_environment(application, completed.parameters)
        price = _price(product, completed)
        admission = Admission(specification=completed, price_per_unit=price.price_per_unit if price else 0)
        taken_by = activity.info().workflow_id
        return admission, holding_of(request.job_id, request.owner, completed, price, taken_by)


def _common_code(findings: Sequence[Finding]) -> ErrorCode:
    codes = {finding.code for finding in findings}
    return codes.pop() if len(codes) == 1 else ErrorCode.VERIFICATION_FAILED


def _in_batch(index: int, document: Any) -> Finding:
    finding = Finding.model_validate(document)
    where = f"[{index}].{finding.field}"
    return finding.model_copy(update={"field": where, "message": f"[{index}] {finding.message}"})


def _name_findings(request: AdmissionRequest) -> Iterator[Finding]:
    """Names that no database takes."""
    names = {"id": request.job_id, "createdBy": request.owner.created_by, "project": request.owner.project or ""}
    for field, name in names.items():
        limit = MAXIMUM_ID_LENGTH if field == "id" else MAXIMUM_NAME_LENGTH
        if len(name) > limit or not name.isprintable():
            yield Finding(field=field, message=f"{field} must be at most {limit} printable characters.")


def _price(product: Product, specification: JobSpecification) -> Price | None:
    """What the whole job costs; None if the product is free."""
    if product.free_to_use or product.price_per_unit == 0:
        return None
    allocation = specification.time_allocation
    return Price(
        category=product.category,
        price_per_unit=product.price_per_unit,
        unit_of_price=product.unit_of_price,
        replicas=specification.replicas,
        milliseconds=allocation.milliseconds if allocation else DEFAULT_ALLOCATION,
    )
