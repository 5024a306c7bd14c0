"""The provider's exceptions: one tree. Messages are for users, and say what to do.

Imported by every package of the provider; imports none of them.
"""

from __future__ import annotations

from typing import ClassVar

from ucloud_orchestrator.models.errors import ErrorCode


class ComputeProviderError(Exception):
    """The base of the provider's exceptions."""

    is_transient: ClassVar[bool] = False
    """Whether the same request may succeed later."""


class RequestRejected(ComputeProviderError):
    """A call of the provider API is rejected for good."""

    def __init__(self, why: str, status: int = 400, code: ErrorCode | None = None) -> None:
        super().__init__(why)
        self.status = status
        self.code = code


class InvalidJobId(ComputeProviderError):
    """The id cannot be the name of a directory, so no job has it."""


class NotAuthenticated(ComputeProviderError):
    """The request is not signed by the orchestrator."""


class InvalidSessionToken(ComputeProviderError):
    """The token does not open this session.

    `is_known` is true for a valid token of another session.
    """

    def __init__(self, why: str, is_known: bool = False) -> None:
        super().__init__(why)
        self.is_known = is_known


class AccessDenied(ComputeProviderError):
    """A request to a web session is not forwarded; `status` is the HTTP status of the answer."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class SessionNotSupported(ComputeProviderError):
    """The application has no session of the requested type."""

    code = ErrorCode.FEATURE_NOT_SUPPORTED_BY_PROVIDER


class MigrationError(ComputeProviderError):
    """The provider's tables cannot be migrated to this release."""


class JobAlreadyTerminated(ComputeProviderError):
    """The job was terminated before it was created."""


class ExecutorError(ComputeProviderError):
    """The executor rejects the operation."""


class TransientExecutorError(ExecutorError):
    is_transient = True


class UnknownSlurmState(ExecutorError):
    """Slurm reports a state that the table does not have."""


class ExecError(ComputeProviderError):
    """The replica has no running program whose sandbox can be joined."""


class NetworkError(ComputeProviderError):
    """A network could not be created; the text has the machine's answer."""


class NetworkNotFound(ComputeProviderError):
    """A job or a replica has no network here."""


class InvalidPath(ComputeProviderError):
    """The path names nothing that a job may use."""


class OutputError(ComputeProviderError):
    """The job's output folder is not usable."""
