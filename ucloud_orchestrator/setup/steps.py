"""What a step of the setup says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from temporalio.service import RPCError, RPCStatusCode

Outcome = Literal["made", "changed", "there"]
_NOT_FOR_US = {
    RPCStatusCode.PERMISSION_DENIED,
    RPCStatusCode.UNIMPLEMENTED,
    RPCStatusCode.UNAUTHENTICATED,
}


@dataclass(frozen=True)
class Step:
    """One thing that serving needs, and whether it had to be made or changed."""

    outcome: Outcome
    what: str
    """For a person, such as `the key pair of the provider local`."""

    def __str__(self) -> str:
        return f"{self.outcome:<7}  {self.what}"


class SetupError(RuntimeError):
    """The cluster does not let the setup go on as it is; the text says what has to be done about
    it.
    """


def is_denied(error: RPCError) -> bool:
    """Whether the cluster leaves this call to its administrators, as hosted ones do."""
    return error.status in _NOT_FOR_US
