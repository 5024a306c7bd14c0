"""The rejections of activities: errors that are not retried, with a public code and a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from temporalio.exceptions import ApplicationError

from ucloud_orchestrator.models.errors import ErrorCode, Finding, truncate, truncate_findings
from ucloud_orchestrator.store import StoreRejected


def rejection(
    code: ErrorCode, message: str = "", findings: Sequence[Finding] = ()
) -> ApplicationError:
    """Return a non-retryable error whose type is `code`.

    With findings, the text is composed of theirs, and the details hold them.
    """
    findings = truncate_findings(findings)
    details = [[finding.to_wire() for finding in findings]] if findings else []
    text = " ".join(finding.message for finding in findings) or truncate(message)
    return ApplicationError(text, *details, type=code, non_retryable=True)


@contextmanager
def map_store_rejections() -> Iterator[None]:
    """Raise `StoreRejected` as a rejection. Other errors of the database pass: they are retried."""
    try:
        yield
    except StoreRejected as error:
        raise rejection(error.code, str(error), error.findings) from error
