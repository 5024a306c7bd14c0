"""Render a job's summary and details for the Temporal Web UI.

The details are Markdown. Values of users are code spans, so that none is rendered as Markdown.
Values of parameters are left out: they may be secrets.
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
"""The number of a job's parameters and resources that are listed."""
MAXIMUM_SUMMARY_BYTES = 400
MAXIMUM_DETAILS_BYTES = 20_000
"""Temporal rejects a workflow with more."""


def summary_of(owner: JobOwner, specification: JobSpecification) -> str:
    name = f" ({specification.name})" if specification.name else ""
    return _truncate_bytes(
        f"{specification.application}{name} for {owner.created_by}", MAXIMUM_SUMMARY_BYTES
    )


def details_of(owner: JobOwner, specification: JobSpecification) -> str:
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
        "Uses": _render_resources(specification),
    }
    return _truncate_bytes("### The request\n\n" + table(rows), MAXIMUM_DETAILS_BYTES)


def table(rows: dict[str, str]) -> str:
    """Render a Markdown table of two columns, without rows that have no value."""
    lines = [f"| {name} | {value} |" for name, value in rows.items() if value]
    return "\n".join(["| | |", "|---|---|", *lines])


def code(value: object) -> str:
    """Render a value as a code span on one line, safe in a table cell."""
    text = " ".join(str(value).split()).replace("`", "'").replace("|", "¦")
    return f"`{truncate(text)}`" if text else ""


def _truncate_bytes(text: str, size: int) -> str:
    encoded = text.encode()
    return text if len(encoded) <= size else encoded[: size - 3].decode(errors="ignore") + "…"


def _render_resources(specification: JobSpecification) -> str:
    resources = []
    for value in (*specification.parameters.values(), *specification.resources):
        match value:
            case FileValue(path=path, read_only=read_only):
                resources.append(f"file {code(path)}{' (read-only)' if read_only else ''}")
            case IngressValue(id=id_):
                resources.append(f"public link {code(id_)}")
            case NetworkValue(id=id_):
                resources.append(f"public IP {code(id_)}")
            case LicenseServerValue(id=id_):
                resources.append(f"license {code(id_)}")
            case PeerValue(hostname=hostname, job_id=job_id):
                resources.append(f"job {code(job_id)} as {code(hostname)}")
            case _:
                continue
    more = len(resources) - MAXIMUM_VALUES
    return ", ".join(resources[:MAXIMUM_VALUES]) + (f", and {more} more" if more > 0 else "")
