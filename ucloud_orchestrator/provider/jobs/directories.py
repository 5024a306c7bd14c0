"""Where the files of jobs are on this machine."""

from __future__ import annotations

from pathlib import Path

from ucloud_orchestrator.provider.files import output_files
from ucloud_orchestrator.provider.settings import HOME_DRIVE, ProviderSettings


class JobFolders:
    """The folders of each job: its own, which ends with it, and its output, which stays."""

    def __init__(self, settings: ProviderSettings) -> None:
        self.all = settings.data_dir.resolve() / "jobs"
        self._home = settings.all_drives[HOME_DRIVE]

    def make(self) -> None:
        """Make the folder of all jobs, for its owner alone. Raises `OSError`."""
        self.all.mkdir(parents=True, exist_ok=True)
        self.all.chmod(0o700)

    def of(self, job_id: str) -> Path:
        """All that belongs to the job alone."""
        return self.all / job_id

    def work(self, job_id: str) -> Path:
        """The folder in which its programs run."""
        return self.of(job_id) / "work"

    def control(self, job_id: str, rank: int) -> Path:
        """What is known of the replica of a rank."""
        return self.of(job_id) / f"replica-{rank}"

    def output(self, job_id: str) -> Path:
        """Its output; standard output and error are written there from the start."""
        return self._home / "Jobs" / job_id

    def make_output(self, job_id: str) -> Path:
        """Its output folder, made if it is not there. Raises `OutputError`, `OSError`."""
        return output_files.make_folder(self._home, f"Jobs/{job_id}")
