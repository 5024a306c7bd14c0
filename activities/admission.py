"""Admission: whether a job may exist, decided with everything that it needs, in one step without
the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.context import workflow_id
from activities.errors import refusal, refusals_of_the_store
from activities.job_references import FindPeer, load_references
from activities.metrics import SeenWorkflows, count
from activities.products import ProductCache
from ucloud_orchestrator.catalog import Catalog
from ucloud_orchestrator.models.accounting import Price
from ucloud_orchestrator.models.claims import Claim, claim_of
from ucloud_orchestrator.models.command_line import build_command_line, build_environment
from ucloud_orchestrator.models.errors import ErrorCode, Finding
from ucloud_orchestrator.models.job import JobSpecification
from ucloud_orchestrator.models.limits import size_findings
from ucloud_orchestrator.models.messages import (
    Admission,
    AdmissionRequest,
    BatchAdmission,
    BatchAdmissionRequest,
)
from ucloud_orchestrator.models.product import Product
from ucloud_orchestrator.models.resource_verification import verify_resources, with_forced_read_only
from ucloud_orchestrator.models.verification import complete, verify
from ucloud_orchestrator.store import ClaimStore
from ucloud_orchestrator.temporal.names import MAXIMUM_JOB_ID_LENGTH, is_job_id

MAXIMUM_NAME_LENGTH = 255
"""Characters of a column of the store."""
DEFAULT_ALLOCATION = 3_600_000
"""Milliseconds that are paid for when neither the job nor its tool names a time: an hour."""


class AdmissionActivities:
    """Local activities; they read the catalog, the drives and the store, and never call a
    provider.
    """

    def __init__(
        self,
        catalog: Callable[[], Catalog],
        holdings: ClaimStore,
        find_peer: FindPeer,
        offered: ProductCache,
    ) -> None:
        self._catalog = catalog
        self._offered = offered
        self._holdings = holdings
        self._find_peer = find_peer
        self._refused = SeenWorkflows()

    @activity.defn
    async def admit(self, request: AdmissionRequest) -> Admission:
        """Verify the whole request, fill in its defaults, and hold what it needs.

        Raises an `ApplicationError` with every finding in its details. Its type is the code of the
        first, such as `VERIFICATION_FAILED`, `RESOURCE_IN_USE`, `INSUFFICIENT_FUNDS` or
        `DUPLICATE_JOB`.
        """
        return (await self._admit([request]))[0]

    @activity.defn
    async def admit_batch(self, request: BatchAdmissionRequest) -> BatchAdmission:
        """Admit all jobs or none. The findings of each name its place in the batch."""
        return BatchAdmission(jobs=await self._admit(request.jobs, in_batch=True))

    async def _admit(
        self, requests: Sequence[AdmissionRequest], in_batch: bool = False
    ) -> list[Admission]:
        claimed_by = workflow_id()
        taken = [
            await self._holdings.find_claim(request.job_id, claimed_by) for request in requests
        ]
        if all(taken):
            # An attempt before this one was through, and its answer was lost; what it took decides.
            return [_admission(holding) for holding in taken if holding]
        try:
            holdings = await self._examine_all(requests, in_batch)
            with refusals_of_the_store():
                await self._holdings.claim(holdings)
        except ApplicationError as error:
            if self._refused.add(claimed_by):
                count(
                    "ucloud_admissions_refused",
                    "Requests that were refused, by code.",
                    code=error.type or "",
                )
            # An attempt that is only slow must not take anything after this refusal.
            await self._holdings.withdraw(claimed_by, [request.job_id for request in requests])
            raise
        return [_admission(holding) for holding in holdings]

    async def _examine_all(
        self, requests: Sequence[AdmissionRequest], in_batch: bool
    ) -> list[Claim]:
        """Examine each. Raises a refusal with the findings of all."""
        holdings: list[Claim] = []
        findings: list[Finding] = []
        for index, request in enumerate(requests):
            holding, found = await self._examine(request)
            findings += [_in_batch(index, finding) for finding in found] if in_batch else found
            holdings += [holding] if holding else []
        if not findings:
            # Defaults may have made the requests larger than they came.
            findings = size_findings([holding.specification for holding in holdings])
        if findings:
            raise refusal(_common_code(findings), findings=findings)
        return holdings

    async def _examine(self, request: AdmissionRequest) -> tuple[Claim | None, list[Finding]]:
        catalog = self._catalog()
        specification = request.specification
        application = catalog.application(specification.application)
        tool = catalog.tool(application.tool) if application else None
        product = catalog.product(specification.product)
        offered = await self._offered.of(specification.product.provider) or {}
        support = offered.get(specification.product) or catalog.support(specification.product)
        around = await load_references(catalog, self._find_peer, request.owner, specification)
        findings = [
            *_name_findings(request),
            *size_findings([specification]),
            *verify(specification, application, tool, product, support),
            *verify_resources(request.owner, specification, application, around),
        ]
        if product is not None:
            findings += _provider_findings(specification.product.provider, catalog)
        if product is not None and offered and specification.product not in offered:
            message = (
                f"The provider {specification.product.provider} offers "
                f"{specification.product} no longer."
            )
            findings.append(
                Finding(field="product", message=message, code=ErrorCode.PROVIDER_REJECTED)
            )
        if findings or application is None or tool is None or product is None:
            return None, findings
        completed = with_forced_read_only(
            request.owner, complete(specification, application, tool), around
        )
        # Built here only to be sure that it can be: the provider builds its own from the same
        # rules.
        build_command_line(application, completed.parameters)
        build_environment(application, completed.parameters)
        price = _price(product, completed)
        return claim_of(request.job_id, request.owner, completed, price, workflow_id()), []


def _admission(holding: Claim) -> Admission:
    price = holding.price.price_per_unit if holding.price else 0
    return Admission(specification=holding.specification, price_per_unit=price)


def _provider_findings(provider_id: str, catalog: Catalog) -> Iterator[Finding]:
    provider = catalog.provider(provider_id)
    if provider is None:
        yield Finding(field="product.provider", message=f"There is no provider {provider_id}.")
    elif provider.draining:
        message = f"The provider {provider_id} takes no new jobs at the moment."
        yield Finding(field="product.provider", message=message, code=ErrorCode.PROVIDER_REJECTED)


def _common_code(findings: Sequence[Finding]) -> ErrorCode:
    codes = {finding.code for finding in findings}
    return codes.pop() if len(codes) == 1 else ErrorCode.VERIFICATION_FAILED


def _in_batch(index: int, finding: Finding) -> Finding:
    where = f"[{index}].{finding.field}"
    return finding.model_copy(update={"field": where, "message": f"[{index}] {finding.message}"})


def _name_findings(request: AdmissionRequest) -> Iterator[Finding]:
    """Names that no database, or no folder, takes."""
    if not is_job_id(request.job_id):
        message = (
            f"id must be a letter or digit and at most {MAXIMUM_JOB_ID_LENGTH - 1} more, or "
            "'.', '_' and '-'."
        )
        yield Finding(field="id", message=message)
    for field, name in {
        "createdBy": request.owner.created_by,
        "project": request.owner.project or "",
    }.items():
        if len(name) > MAXIMUM_NAME_LENGTH or not name.isprintable():
            yield Finding(
                field=field,
                message=f"{field} must be at most {MAXIMUM_NAME_LENGTH} printable characters.",
            )


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
