"""The host names of a Slurm job's peers: named on the node of each rank when it starts, since only
then is it known where a peer's rank 0 runs, and only there how that node is reached.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from ucloud_orchestrator.models.job import Job
from ucloud_orchestrator.provider.network.networks import peers_of
from ucloud_orchestrator.provider.sandbox import bubblewrap

log = logging.getLogger(__name__)

WRITE_HOSTS_SCRIPT = """
# The peers first, then what the node's own file says of others: a name that stands twice would have
# two addresses.
named() {
  names=
  while read -r name peer; do
    host=$(cat "$peer/replica-0/ucloud/node-0.txt" 2> /dev/null)
    if [ -z "$host" ]; then
      echo "The peer $name (job ${peer##*/}) does not run at this provider any more."
      return 1
    fi
    address=$( (getent ahostsv4 "$host" || getent ahosts "$host") | head -n 1 | cut -d ' ' -f 1)
    if [ -z "$address" ]; then
      echo "The peer $name cannot be reached: $(hostname) does not know the address of its node $host."
      return 1
    fi
    names="$names $name"
    echo "$address $name" >> "$3"
  done < "$1"
  awk -v names="$names" '
    BEGIN { count = split(tolower(names), list, " "); for (i = 1; i <= count; i++) taken[list[i]] = 1 }
    { sub(/#.*/, ""); kept = ""; for (i = 2; i <= NF; i++) if (!(tolower($i) in taken)) kept = kept " " $i
      if (kept != "") print $1 kept }' "$2" >> "$3"
}
"""
"""`named PEERS HOSTS NEW` writes the file of hosts NEW from the node's own HOSTS; what it says is
why it could not.
"""


def lines(job: Job, folder_of: Callable[[str], Path]) -> str:
    """The file `peers` in the job's folder: the host name and the folder of each."""
    peers = {
        peer.hostname: folder_of(peer.job_id)
        for peer in peers_of(job)
        if peer.hostname.lower() != "localhost"
    }
    return "".join(f"{name} {folder}\n" for name, folder in peers.items())


def etc(job: Job, control: Path) -> Mapping[str, Path]:
    """The files of `/etc` that a replica has of its own, made when its rank starts."""
    if not peers_of(job):
        return {}
    if not bubblewrap.is_available():
        log.warning(
            "Without a sandbox the host names of the peers of job %s are unknown to it.", job.id
        )
    return {"hosts": control / "hosts"}


def failure(folder: Path) -> str | None:
    """Why a rank could not be started, if it could not."""
    with contextlib.suppress(FileNotFoundError):
        return (folder / "begun" / "failed").read_text().strip() or None
    return None
