"""Admission: the verification of requests and the claims of jobs, without calls to providers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.errors import map_store_rejections, rejection
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
"""Milliseconds that are reserved when neither the job nor its tool has a time allocation."""


class AdmissionActivities:
    """Local activities that read the catalog, the drives and the store. Idempotent."""

    def __init__(
        self,
        catalog: Callable[[], Catalog],
        claims: ClaimStore,
        find_peer: FindPeer,
        products: ProductCache,
    ) -> None:
        self._catalog = catalog
        self._claims = claims
        self._find_peer = find_peer
        self._products = products
        self._rejected = SeenWorkflows()

    @activity.defn
    async def admit(self, request: AdmissionRequest) -> Admission:
        """Verify the request, fill in its defaults, and claim what the job needs.

        Raises an `ApplicationError` with all findings in its details. Its type is their code, or
        `VERIFICATION_FAILED` if they have several.
        """
        return (await self._admit([request]))[0]

    @activity.defn
    async def admit_batch(self, request: BatchAdmissionRequest) -> BatchAdmission:
        """Admit all jobs or none. Each finding names the job's index in the batch."""
        return BatchAdmission(jobs=await self._admit(request.jobs, in_batch=True))

    async def _admit(
        self, requests: Sequence[AdmissionRequest], in_batch: bool = False
    ) -> list[Admission]:
        claimed_by = activity.info().workflow_id
        assert claimed_by is not None  # a local activity belongs to a workflow
        existing = [
            await self._claims.find_claim(request.job_id, claimed_by) for request in requests
        ]
        if all(existing):
            # A former attempt succeeded, and its answer was lost: its claims decide.
            return [_admission(claim) for claim in existing if claim]
        try:
            claims = await self._verify_all(requests, claimed_by, in_batch)
            with map_store_rejections():
                await self._claims.claim(claims)
        except ApplicationError as error:
            if self._rejected.add(claimed_by):
                count(
                    "ucloud_admissions_rejected",
                    "Rejected requests by code.",
                    code=error.type or "",
                )
            # An attempt that is still under way must not claim anything after this rejection.
            await self._claims.withdraw(claimed_by, [request.job_id for request in requests])
            raise
        return [_admission(claim) for claim in claims]

    async def _verify_all(
        self, requests: Sequence[AdmissionRequest], claimed_by: str, in_batch: bool
    ) -> list[Claim]:
        claims: list[Claim] = []
        findings: list[Finding] = []
        for index, request in enumerate(requests):
            claim, found = await self._verify(request, claimed_by)
            findings += [_in_batch(index, finding) for finding in found] if in_batch else found
            claims += [claim] if claim else []
        if not findings:
            # Defaults may have made the requests larger.
            findings = size_findings([claim.specification for claim in claims])
        if findings:
            raise rejection(_common_code(findings), findings=findings)
        return claims

    async def _verify(
        self, request: AdmissionRequest, claimed_by: str
    ) -> tuple[Claim | None, list[Finding]]:
        catalog = self._catalog()
        specification = request.specification
        application = catalog.application(specification.application)
        tool = catalog.tool(application.tool) if application else None
        product = catalog.product(specification.product)
        support = await self._products.find_support(specification.product, catalog)
        references = await load_references(catalog, self._find_peer, request.owner, specification)
        findings = [
            *_name_findings(request),
            *size_findings([specification]),
            *verify(specification, application, tool, product, support),
            *verify_resources(request.owner, specification, application, references),
        ]
        if product is not None:
            findings += await self._provider_findings(specification, catalog)
        if findings or application is None or tool is None or product is None:
            return None, findings
        completed = with_forced_read_only(
            request.owner, complete(specification, application, tool), references
        )
        # Providers build these by the same rules; a failure here is a fault of the catalog.
        build_command_line(application, completed.parameters)
        build_environment(application, completed.parameters)
        price = _price(product, completed)
        return claim_of(request.job_id, request.owner, completed, price, claimed_by), []

    async def _provider_findings(
        self, specification: JobSpecification, catalog: Catalog
    ) -> list[Finding]:
        name = specification.product.provider
        provider = catalog.provider(name)
        products = await self._products.find(name)
        findings = []
        if provider is None:
            message = f"There is no provider {name}."
            findings.append(Finding(field="product.provider", message=message))
        elif provider.draining:
            message = f"The provider {name} takes no new jobs at the moment."
            findings.append(_provider_finding("product.provider", message))
        if products and specification.product not in products:
            message = f"The provider {name} offers {specification.product} no longer."
            findings.append(_provider_finding("product", message))
        return findings


def _admission(claim: Claim) -> Admission:
    price = claim.price.price_per_unit if claim.price else 0
    return Admission(specification=claim.specification, price_per_unit=price)


def _provider_finding(field: str, message: str) -> Finding:
    return Finding(field=field, message=message, code=ErrorCode.PROVIDER_REJECTED)


def _common_code(findings: Sequence[Finding]) -> ErrorCode:
    codes = {finding.code for finding in findings}
    return codes.pop() if len(codes) == 1 else ErrorCode.VERIFICATION_FAILED


def _in_batch(index: int, finding: Finding) -> Finding:
    where = f"[{index}].{finding.field}"
    return finding.model_copy(update={"field": where, "message": f"[{index}] {finding.message}"})


def _name_findings(request: AdmissionRequest) -> Iterator[Finding]:
    """Yield findings for names that are too long or unprintable for the store or a folder."""
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
    """Return the price of the whole job; None if the product is free."""
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
