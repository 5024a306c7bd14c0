"""A real Slurm cluster on one machine: munge, a controller and four nodes, all with folders, ports
and keys of its own.

`python -m tests.slurm.cluster FOLDER` runs one until SIGINT or SIGTERM, and says what to set to use
it. Needs root, and the Debian packages `slurm-wlm` and `munge`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.waiting import wait_until

NODES = ("n0", "n1", "n2", "n3")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
CORES_OF_A_NODE = 8
"""The cores that a node declares; `config_overrides` allows more than the machine has."""

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0
SchedulerType=sched/backfill
ReturnToService=2
SlurmdTimeout={node_timeout}
InactiveLimit=0
KillWait=3
MinJobAge={minimum_age}
MessageTimeout=10
NodeName=n[0-3] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports}] CPUs={cores} RealMemory=8000
PartitionName=main Nodes=n[0-3] Default=YES MaxTime=INFINITE State=UP
"""


def missing_programs() -> list[str]:
    """Return the programs of Slurm and munge that are not on the PATH."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


class Cluster:
    """A cluster in `folder`, whose path must be short enough for a socket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configuration = folder / "slurm.conf"
        self.environment = {**os.environ, "SLURM_CONF": str(self.configuration)}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start all daemons, and wait until the nodes are idle.

        Raises `AssertionError` if they do not come up.
        """
        munge, state = self.folder / "munge", self.folder / "state"
        for folder in (munge, state, *(self.folder / f"spool-{node}" for node in NODES)):
            folder.mkdir(parents=True)
        self.folder.chmod(0o755)
        munge.chmod(0o755)
        key = munge / "key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        port = _free_ports(1 + len(NODES))
        self.configuration.write_text(
            CONFIGURATION.format(
                host=socket.gethostname().partition(".")[0],
                folder=self.folder,
                controller_port=port,
                ports=f"{port + 1}-{port + len(NODES)}",
                cores=CORES_OF_A_NODE,
                node_timeout=10,
                minimum_age=20,
            )
        )
        options = {
            "socket": munge / "socket",
            "key-file": key,
            "pid-file": munge / "pid",
            "log-file": munge / "log",
            "seed-file": munge / "seed",
        }
        self._start(
            "munged", "--foreground", *(f"--{name}={value}" for name, value in options.items())
        )
        wait_until((munge / "socket").exists, 30, "munged has no socket")
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        wait_until(
            lambda: self.idle_nodes() == len(NODES),
            30,
            f"the nodes are not idle: see the logs in {self.folder}",
        )

    def start_controller(self) -> None:
        """Start slurmctld from its saved state."""
        self._start("slurmctld", "-D")

    def start_node(self, node: str) -> None:
        """Start a node's slurmd."""
        self._start("slurmd", "-D", "-N", node, name=node)

    def kill(self, name: str) -> None:
        """SIGKILL a daemon: `slurmctld`, or a node's name for its slurmd."""
        daemon = self._daemons.pop(name)
        daemon.kill()
        daemon.wait()

    def stop_controller(self) -> None:
        """Stop slurmctld, which saves its state."""
        daemon = self._daemons.pop("slurmctld")
        daemon.terminate()
        daemon.wait(60)

    def repair(self) -> None:
        """Restart killed daemons, and resume all nodes."""
        if "slurmctld" not in self._daemons:
            self.start_controller()
        for node in NODES:
            if node not in self._daemons:
                self.start_node(node)
        wait_until(self._resume_nodes, 30, "the nodes do not come back")

    def release(self, name: str) -> None:
        """Let a requeued job start now instead of minutes later.

        Not within the second of its requeue: the node would reject its credential as revoked.
        """
        put_back_by = int(time.time())
        wait_until(lambda: int(time.time()) > put_back_by + 1, 30)
        for number in self.run("squeue", f"--name={name}", "--noheader", "--format=%i").split():
            self.run("scontrol", "update", f"JobId={number}", "StartTime=now")

    def run(self, *command: str) -> str:
        """Return the output of a Slurm command. Raises `subprocess.CalledProcessError`."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    def idle_nodes(self) -> int:
        """Return the number of idle nodes."""
        with contextlib.suppress(subprocess.CalledProcessError):
            return self.run("sinfo", "--noheader", "--Node", "--format=%T").split().count("idle")
        return 0

    def _resume_nodes(self) -> bool:
        with contextlib.suppress(subprocess.CalledProcessError):
            seen = dict(
                line.split()
                for line in self.run("sinfo", "-h", "--Node", "--format=%N %T").splitlines()
            )
            for node, state in seen.items():
                if state not in {"idle", "mixed", "allocated", "completing"}:
                    self.run("scontrol", "update", f"NodeName={node}", "State=RESUME")
            return all(
                state in {"idle", "mixed", "allocated", "completing"} for state in seen.values()
            )
        return False

    def cancel_all(self) -> None:
        """Cancel all jobs, if the controller answers."""
        with contextlib.suppress(subprocess.SubprocessError):
            self.run("scancel", "--user=root")

    def stop(self) -> None:
        """Kill all jobs, then all daemons."""
        with contextlib.suppress(subprocess.SubprocessError):
            if "slurmctld" in self._daemons:
                self.run("scancel", "--user=root", "--signal=KILL", "--full")
                self.run("scancel", "--user=root")
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            try:
                daemon.wait(5)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()
        for process in psutil.process_iter(["name"]):
            # A node that still has messages for the controller would retry for long.
            with contextlib.suppress(psutil.Error):
                is_ours = process.environ().get("SLURM_CONF") == str(self.configuration)
                if is_ours and process.info["name"].startswith("slurmstepd"):
                    process.kill()

    def _start(self, program: str, *arguments: str, name: str | None = None) -> None:
        with (self.folder / f"{name or program}.out").open("ab") as output:
            self._daemons[name or program] = subprocess.Popen(
                [program, *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )


@contextlib.contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """Run a cluster, and stop it at the end."""
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def _free_ports(count: int) -> int:
    """Return the first of `count` consecutive free ports."""
    for first in range(20000 + os.getpid() % 1000 * 10, 60000, count):
        with contextlib.ExitStack() as sockets:
            try:
                for port in range(first, first + count):
                    sockets.enter_context(socket.socket()).bind(("0.0.0.0", port))
            except OSError:
                continue
            return first
    raise RuntimeError("there are no free ports")


def main(folder: Path) -> None:
    """Run a cluster until SIGINT or SIGTERM."""
    if missing := missing_programs():
        sys.exit(
            f"{', '.join(missing)} not found: install the Debian packages slurm-wlm and munge."
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), running_cluster(folder.resolve()) as cluster:
        print(f"export SLURM_CONF={cluster.configuration}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
