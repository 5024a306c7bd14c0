"""What operators read of a job before it does anything: one line, and a page of Markdown; pure.

Values of users stand in code marks, so that none of them is read as Markdown. No parameter's value
is told: it may be a secret.
"""

from __future__ import annotations

from ucloud_orchestrator.models.errors import truncate
from ucloud_orchestrator.models.job import JobOwner, JobSpecification
from ucloud_orchestrator.models.parameter_values import (
    FileValue,
    IngressValue,
    LicenseServerValue,
    NetworkValue,
    PeerValue,
)

MAXIMUM_VALUES = 20
"""How many of a job's files and resources are named."""
MAXIMUM_SUMMARY_BYTES = 400
MAXIMUM_DETAILS_BYTES = 20_000
"""Temporal refuses a workflow with more."""


def summary_of(owner: JobOwner, specification: JobSpecification) -> str:
    """One line: what, and for whom."""
    name = f" ({specification.name})" if specification.name else ""
    return _truncate_bytes(
        f"{specification.application}{name} for {owner.created_by}", MAXIMUM_SUMMARY_BYTES
    )


def details_of(owner: JobOwner, specification: JobSpecification) -> str:
    """Who asks for what and where, as a table."""
    allocation = specification.time_allocation
    rows = {
        "Application": code(specification.application),
        "Name": code(specification.name) if specification.name else "",
        "Owner": code(owner.created_by)
        + (f" in the project {code(owner.project)}" if owner.project else ""),
        "Product": code(specification.product),
        "Replicas": str(specification.replicas),
        "Asked time": f"{allocation.hours} h {allocation.minutes} min {allocation.seconds} s"
        if allocation
        else "",
        "Parameters": ", ".join(map(code, list(specification.parameters)[:MAXIMUM_VALUES])),
        "Uses": _uses(specification),
    }
    return _truncate_bytes("### The request\n\n" + table(rows), MAXIMUM_DETAILS_BYTES)


def table(rows: dict[str, str]) -> str:
    """A table of two columns, without the rows that have no value."""
    lines = [f"| {name} | {value} |" for name, value in rows.items() if value]
    return "\n".join(["| | |", "|---|---|", *lines])


def code(value: object) -> str:
    """A value in code marks, on one line, that cannot leave its cell."""
    text = " ".join(str(value).split()).replace("`", "'").replace("|", "¦")
    return f"`{truncate(text)}`" if text else ""


def _truncate_bytes(text: str, size: int) -> str:
    """The text, in at most that many bytes of UTF-8."""
    encoded = text.encode()
    return text if len(encoded) <= size else encoded[: size - 3].decode(errors="ignore") + "…"


def _uses(specification: JobSpecification) -> str:
    named = []
    for value in (*specification.parameters.values(), *specification.resources):
        match value:
            case FileValue(path=path, read_only=read_only):
                named.append(f"file {code(path)}{' (read-only)' if read_only else ''}")
            case IngressValue(id=id_):
                named.append(f"public link {code(id_)}")
            case NetworkValue(id=id_):
                named.append(f"public IP {code(id_)}")
            case LicenseServerValue(id=id_):
                named.append(f"license {code(id_)}")
            case PeerValue(hostname=hostname, job_id=job_id):
                named.append(f"job {code(job_id)} as {code(hostname)}")
            case _:
                continue
    more = len(named) - MAXIMUM_VALUES
    return ", ".join(named[:MAXIMUM_VALUES]) + (f", and {more} more" if more > 0 else "")
