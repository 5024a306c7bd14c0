"""The table of Slurm's states, and the reading of its queue."""

from __future__ import annotations

from pathlib import Path

import pytest

from ucloud_orchestrator.models.job import JobState
from ucloud_orchestrator.provider.errors import UnknownSlurmState
from ucloud_orchestrator.provider.executors.slurm.commands import SlurmJob, position
from ucloud_orchestrator.provider.executors.slurm.states import (
    STATES,
    SlurmPhase,
    mapping_of,
    table,
)


def waiting(slurm_job_id: int, priority: int, partition: str = "main") -> SlurmJob:
    return SlurmJob(slurm_job_id, "PENDING", partition, priority, "Resources", "name")


def test_an_unknown_state_is_an_error_that_names_it() -> None:
    with pytest.raises(UnknownSlurmState, match="'DREAMING'"):
        mapping_of("DREAMING")


def test_only_faults_of_the_scheduler_and_the_hardware_are_failures() -> None:
    failures = {state for state, mapping in STATES.items() if mapping.end is JobState.FAILURE}
    own = {
        "CANCELLED",
        "PREEMPTED",
        "REVOKED",
        "LAUNCH_FAILED",
        "RECONFIG_FAIL",
        "NODE_FAIL",
        "BOOT_FAIL",
    }
    assert failures == own
    assert mapping_of("OUT_OF_MEMORY").end is JobState.SUCCESS


def test_what_is_not_over_has_no_end() -> None:
    assert all(
        mapping.end is None for mapping in STATES.values() if mapping.phase is not SlurmPhase.ENDED
    )


def test_the_documented_table_is_the_code() -> None:
    document = Path(__file__).parents[2] / "docs" / "operators" / "slurm.md"
    assert document.read_text().endswith(table())


def test_the_position_counts_higher_priorities_and_older_jobs_of_the_partition() -> None:
    job = waiting(5, 10)
    others = [
        waiting(1, 11),
        waiting(2, 10),
        waiting(6, 10),
        waiting(3, 9),
        waiting(4, 50, "other"),
    ]
    assert position([job, *others], job) == 3
