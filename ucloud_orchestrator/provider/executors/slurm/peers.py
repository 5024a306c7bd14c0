"""The host names of a Slurm job's peers, written on each node when its rank starts.

Only then is it known on which node a peer's rank 0 runs, and only that node resolves its address.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from ucloud_orchestrator.models.job import Job
from ucloud_orchestrator.provider.network.networks import peers_of
from ucloud_orchestrator.provider.sandbox import bubblewrap

log = logging.getLogger(__name__)

WRITE_HOSTS_SCRIPT = """
# The peers come first. A name of theirs is left out of the node's own lines: it would have two
# addresses.
write_hosts() {
  names=
  while read -r name peer; do
    host=$(cat "$peer/replica-0/ucloud/node-0.txt" 2> /dev/null)
    if [ -z "$host" ]; then
      echo "The peer $name (job ${peer##*/}) does not run at this provider any more."
      return 1
    fi
    address=$( (getent ahostsv4 "$host" || getent ahosts "$host") | head -n 1 | cut -d ' ' -f 1)
    if [ -z "$address" ]; then
      echo "The peer $name cannot be reached:" \\
        "$(hostname) does not know the address of its node $host."
      return 1
    fi
    names="$names $name"
    echo "$address $name" >> "$3"
  done < "$1"
  awk -v names="$names" '
    BEGIN { count = split(tolower(names), list, " ")
      for (i = 1; i <= count; i++) used[list[i]] = 1 }
    { sub(/#.*/, ""); kept = ""
      for (i = 2; i <= NF; i++) if (!(tolower($i) in used)) kept = kept " " $i
      if (kept != "") print $1 kept }' "$2" >> "$3"
}
"""
"""`write_hosts PEERS HOSTS NEW` writes NEW from the node's HOSTS; its output is the error."""


def lines(job: Job, directory_of: Callable[[str], Path]) -> str:
    """Return the file `peers`: the host name and the job's directory of each peer."""
    peers = {
        peer.hostname: directory_of(peer.job_id)
        for peer in peers_of(job)
        if peer.hostname.lower() != "localhost"
    }
    return "".join(f"{name} {directory}\n" for name, directory in peers.items())


def etc(job: Job, control: Path) -> Mapping[str, Path]:
    """Return the replica's own files of `/etc`, which are written when its rank starts."""
    if not peers_of(job):
        return {}
    if not bubblewrap.is_available():
        log.warning(
            "Without a sandbox the host names of the peers of job %s are unknown to it.", job.id
        )
    return {"hosts": control / "hosts"}
