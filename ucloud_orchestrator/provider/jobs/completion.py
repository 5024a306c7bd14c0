"""The output of a job that has ended."""

from __future__ import annotations

import logging

from ucloud_orchestrator.models.job import Job
from ucloud_orchestrator.models.parameter_values import FileValue
from ucloud_orchestrator.provider.errors import OutputError
from ucloud_orchestrator.provider.files import output_files
from ucloud_orchestrator.provider.jobs.directories import JobDirectories
from ucloud_orchestrator.provider.jobs.preparation import resolved

log = logging.getLogger(__name__)


def collect(job: Job, directories: JobDirectories) -> list[str]:
    """Move the job's output to its output folder; returns what could not be moved. Idempotent."""
    application, _ = resolved(job)
    values = (*job.specification.parameters.values(), *job.specification.resources)
    mounts = {
        value.path.rstrip("/").rpartition("/")[2]
        for value in values
        if isinstance(value, FileValue)
    }
    try:
        output = directories.make_output(job.id)
    except (OSError, OutputError) as error:
        log.warning("No output of the job %s is kept: %s", job.id, error)
        return ["all of it"]
    return output_files.collect(
        directories.work(job.id), output, application.output_file_globs, mounts
    )
