"""The result of a setup step, and its error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from temporalio.service import RPCError, RPCStatusCode

Outcome = Literal["made", "changed", "there"]
_DENIED = {
    RPCStatusCode.PERMISSION_DENIED,
    RPCStatusCode.UNIMPLEMENTED,
    RPCStatusCode.UNAUTHENTICATED,
}


@dataclass(frozen=True)
class Step:
    """A completed step: a part of the deployment, and how it was changed."""

    outcome: Outcome
    what: str
    """For a person, such as `the key pair of the provider local`."""

    def __str__(self) -> str:
        return f"{self.outcome:<7}  {self.what}"


class SetupError(RuntimeError):
    """A step that cannot be done. The text has the reason and the remedy."""


def is_denied(error: RPCError) -> bool:
    """Check if only the cluster's administrators may make this call, as at hosted clusters."""
    return error.status in _DENIED
