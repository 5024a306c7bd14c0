"""The errors that the store raises itself. Those of SQLAlchemy and the drivers pass through."""

from __future__ import annotations

from collections.abc import Sequence

from ucloud_orchestrator.models.errors import ErrorCode, Finding


class StoreError(Exception):
    """The base of all errors here."""


class StoreRejected(StoreError):
    """A request breaks a rule of the store; the transaction changed nothing. A retry cannot help.

    `findings` are all the reasons, if there can be more than one.
    """

    def __init__(self, code: ErrorCode, message: str, findings: Sequence[Finding] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.findings = list(findings)


class InsufficientBalance(StoreError):
    """A transfer exceeds its account, or what a wallet can hold; nothing was moved."""


class DatabaseError(StoreError):
    """The database cannot be reached, or its URL is invalid.

    The text gives the reason, and never shows the password.
    """


class SchemaVersionError(StoreError):
    """The database has other tables than this release needs; `setup` brings them up to date."""
