"""Summary and details of a job for the Temporal Web UI."""

from __future__ import annotations

from tests.builders import file, specification
from ucloud_orchestrator.models import JobOwner
from ucloud_orchestrator.temporal.user_metadata import (
    MAXIMUM_DETAILS_BYTES,
    MAXIMUM_SUMMARY_BYTES,
    details_of,
    summary_of,
)

OWNER = JobOwner(created_by="alice", project="research")


def test_summary_and_details_have_the_request() -> None:
    request = specification(
        "word-count",
        "1.0",
        name="My analysis",
        replicas=3,
        timeAllocation={"hours": 2},
        parameters={"secret": {"type": "text", "value": "hunter2"}},
        resources=[
            {"type": "file", "path": "/data/in.txt", "readOnly": True},
            {"type": "ingress", "id": "link"},
            {"type": "peer", "hostname": "database", "jobId": "41"},
        ],
    )
    assert summary_of(OWNER, request) == "word-count@1.0 (My analysis) for alice"
    assert details_of(OWNER, request).splitlines()[2:] == [
        "| | |",
        "|---|---|",
        "| Application | `word-count@1.0` |",
        "| Name | `My analysis` |",
        "| Owner | `alice` in the project `research` |",
        "| Product | `cpu-1/cpu@local` |",
        "| Replicas | 3 |",
        "| Asked time | 2 h 0 min 0 s |",
        "| Parameters | `secret` |",
        "| Uses | file `/data/in.txt` (read-only), public link `link`, job `41` as `database` |",
    ]


def test_values_of_users_are_not_markdown() -> None:
    path = "/data/`|\n# a\n| b"
    details = details_of(OWNER, specification(resources=[file(path)]))
    assert details.splitlines()[-1] == "| Uses | file `/data/'¦ # a ¦ b` |"


def test_summary_and_details_fit_temporals_limits() -> None:
    files = [file(f"/data/{'ø' * 3000}{number}") for number in range(100)]
    request = specification("å" * 255, "æ" * 255, name="ø" * 200, resources=files)
    assert len(summary_of(OWNER, request).encode()) <= MAXIMUM_SUMMARY_BYTES
    details = details_of(OWNER, request)
    assert len(details.encode()) <= MAXIMUM_DETAILS_BYTES
