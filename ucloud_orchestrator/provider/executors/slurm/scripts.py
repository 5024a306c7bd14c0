"""What runs on the nodes: the batch script of the first one, and the wrapper of each rank, which
runs the starter.

The job's folder is on a file system that all nodes share. Its folder `begun` is made by the first
Slurm job that gets there, and names it: another one for the same job ends at once. The same one
again is a requeue, and begins anew; `begun/restarts` counts them, as Slurm does, so that nobody
takes what an earlier attempt left for news of this one.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from ucloud_orchestrator.provider.executors.base import ReplicaStart
from ucloud_orchestrator.provider.executors.replica import STARTER
from ucloud_orchestrator.provider.executors.slurm import peers
from ucloud_orchestrator.provider.sandbox import launcher

BATCH = """
folder=$1 cores=$2
cd "$folder" || exit 0
if mkdir begun 2> /dev/null; then
  echo "$SLURM_JOB_ID" > begun/new && mv begun/new begun/slurm-job
elif [ "$(cat begun/slurm-job)" = "$SLURM_JOB_ID" ]; then
  rm -rf replica-*/started replica-*/pid replica-*/exit-code replica-*/host begun/failed
else
  exit 0
fi
restarts=${SLURM_RESTART_COUNT:-0}
echo "$restarts" > begun/restarts.new && mv begun/restarts.new begun/restarts
rank=0
for node in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
  host=$(scontrol show node --oneliner "$node" | sed -n 's/.* NodeHostName=\\([^ ]*\\) .*/\\1/p')
  for replica in replica-*; do
    echo "${host:-$node}" > "$replica/ucloud/node-$rank.txt"
  done
  rank=$((rank + 1))
done
exec srun --nodes="$rank" --ntasks="$rank" --ntasks-per-node=1 --cpus-per-task="$cores" --kill-on-bad-exit=1 \\
  --export=ALL --input=none --output=/dev/null --error=begun/srun.txt /bin/sh "$folder/rank.sh" "$folder" "$restarts"
"""
"""`node-<rank>.txt` holds the nodes' host names, which differ from Slurm's own names where a centre
says so.
"""

RANK = (
    peers.WRITE_HOSTS_SCRIPT
    + """
control=$1/replica-$SLURM_PROCID
# The wrapper outlives a SIGTERM, to note the exit code; the program is given SIGTERM's default
# again.
trap '' TERM
if [ -s "$1/peers" ]; then
  rm -f "$control/hosts"
  why=$(named "$1/peers" /etc/hosts "$control/hosts") || {
    [ "$(cat "$1/begun/restarts")" = "$2" ] || exit 0
    echo "$why" > "$1/begun/failed.$SLURM_PROCID" && mv "$1/begun/failed.$SLURM_PROCID" "$1/begun/failed"
    exit 1
  }
fi
mkdir "$control/started" || exit 0
echo $$ > "$control/pid.new" && mv "$control/pid.new" "$control/pid"
echo "$SLURMD_NODENAME" > "$control/host.new" && mv "$control/host.new" "$control/host"
/bin/sh "$control/command.sh"
code=$?
# A node that was given up may still run an attempt that another one has followed.
[ "$(cat "$1/begun/restarts")" = "$2" ] || exit 0
echo $code > "$control/exit-code.new" && mv "$control/exit-code.new" "$control/exit-code"
exit $code
"""
)

EXEC_SCRIPT = """
control=$1 enclosed=$2
shift 2
outer=$(pgrep -P "$(cat "$control/pid")" | head -n 1)
inner=$(pgrep -P "$outer" | head -n 1)
program=$(pgrep -P "$inner" | head -n 1)
if [ "$enclosed" = yes ] && [ -z "$program" ]; then
  echo "The replica has not started yet, or has ended." >&2
  exit 1
fi
program=${program:-${inner:-$outer}}
list=$(mktemp)
trap 'rm -f "$list"' EXIT
{ cat "/proc/$program/environ"; printf '%s\\0' "$@"; } > "$list"
rights="--no-new-privs --inh-caps=-all"
if [ "$(id -u)" = 0 ]; then rights="$rights --bounding-set=-all"; fi
xargs -0 -x -a "$list" env -i PATH="$PATH" \\
  nsenter --target "$program" --all --preserve-credentials --wd="/proc/$program/cwd" -- setpriv $rights env -i
"""
"""Runs a command in the namespaces and with the environment of a replica's program, on the node
where it runs, with none of root's rights over the node. Where replicas have a sandbox, what is
still outside of it is not entered.
"""


def write(folder: Path, replicas: Sequence[ReplicaStart], peers: str) -> None:
    """Write the scripts of a job, and the lines that name its peers; a repeat writes the same."""
    _write(folder / "peers", peers)
    _write(folder / "batch.sh", BATCH)
    _write(folder / "rank.sh", RANK)
    # The job may begin when the provider is of another release already.
    _write(folder / "starter.py", Path(launcher.__file__).read_text())
    for replica in replicas:
        words = [
            *STARTER,
            str(folder / "starter.py"),
            str(replica.stdout),
            str(replica.stderr),
            *replica.command,
        ]
        _write(
            folder / f"replica-{replica.rank}" / "command.sh",
            f"exec {shlex.join(words)} < /dev/null\n",
        )


def _write(file: Path, text: str) -> None:
    """Whole or not at all: the job may read it already."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.new")
    new.write_text(text)
    new.replace(file)
