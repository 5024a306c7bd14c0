"""How a rank's `/etc/hosts` is written on its node, by the shell that does it there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ucloud_orchestrator.provider.executors.slurm.peers import WRITE_HOSTS_SCRIPT

pytestmark = pytest.mark.long

NODE = """
127.0.0.1 localhost
10.0.0.5 Database db2  # an old one
10.0.0.6 database
10.0.0.7 files
"""


def write_hosts(
    folder: Path, *peers: str, node: str = "127.0.0.1"
) -> subprocess.CompletedProcess[str]:
    control = folder / "jobs of many" / "1" / "replica-0" / "ucloud"
    control.mkdir(parents=True)
    (control / "node-0.txt").write_text(f"{node}\n")
    (folder / "peers").write_text("".join(f"{peer}\n" for peer in peers))
    (folder / "etc-hosts").write_text(NODE)
    command = ["sh", "-c", f"{WRITE_HOSTS_SCRIPT}\nwrite_hosts peers etc-hosts hosts"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_peers_come_before_what_the_node_says(tmp_path: Path) -> None:
    done = write_hosts(tmp_path, "database jobs of many/1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    lines = (tmp_path / "hosts").read_text().splitlines()
    assert lines == ["127.0.0.1 database", "127.0.0.1 localhost", "10.0.0.5 db2", "10.0.0.7 files"]


@pytest.mark.parametrize(
    ("peers", "node", "why"),
    [
        (
            "gone jobs/2",
            "127.0.0.1",
            "The peer gone (job 2) does not run at this provider any more.",
        ),
        (
            "far jobs of many/1",
            "no-such-host.invalid",
            "does not know the address of its node no-such-host.invalid.",
        ),
    ],
)
def test_a_peer_that_cannot_be_named_is_reported(
    tmp_path: Path, peers: str, node: str, why: str
) -> None:
    done = write_hosts(tmp_path, peers, node=node)
    assert done.returncode == 1
    assert why in done.stdout
