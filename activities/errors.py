"""How an activity says no for good: an error that is not tried again, with a public code and a
sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from temporalio.exceptions import ApplicationError

from ucloud_orchestrator.models.errors import ErrorCode, Finding, truncate, truncate_findings
from ucloud_orchestrator.store import StoreRejected


def refusal(
    code: ErrorCode, message: str = "", findings: Sequence[Finding] = ()
) -> ApplicationError:
    """An error that ends the attempts; `code` is its type.

    With findings, its text is theirs, and they its details.
    """
    findings = truncate_findings(findings)
    details = [[finding.to_wire() for finding in findings]] if findings else []
    text = " ".join(finding.message for finding in findings) or truncate(message)
    return ApplicationError(text, *details, type=code, non_retryable=True)


@contextmanager
def refusals_of_the_store() -> Iterator[None]:
    """What the store refuses is refused for good; any other error of a database is tried again."""
    try:
        yield
    except StoreRejected as error:
        raise refusal(error.code, str(error), error.findings) from error
