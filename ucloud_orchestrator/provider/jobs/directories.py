"""The directories of jobs on this machine."""

from __future__ import annotations

from pathlib import Path

from ucloud_orchestrator.provider.files import output_files
from ucloud_orchestrator.provider.settings import HOME_DRIVE, ProviderSettings


class JobDirectories:
    """The directory of each job, deleted at its end, and its output folder, which stays."""

    def __init__(self, settings: ProviderSettings) -> None:
        self.root = settings.data_dir.resolve() / "jobs"
        self._home = settings.all_drives[HOME_DRIVE]

    def make(self) -> None:
        """Make the directory of all jobs with mode 0700. Raises `OSError`."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)

    def of(self, job_id: str) -> Path:
        return self.root / job_id

    def work(self, job_id: str) -> Path:
        return self.of(job_id) / "work"

    def control(self, job_id: str, rank: int) -> Path:
        return self.of(job_id) / f"replica-{rank}"

    def output(self, job_id: str) -> Path:
        """Return the output folder, which has standard output and error from the start."""
        return self._home / "Jobs" / job_id

    def make_output(self, job_id: str) -> Path:
        """Make and return the output folder. Idempotent. Raises `OutputError`, `OSError`."""
        return output_files.make_folder(self._home, f"Jobs/{job_id}")
