"""The scripts that run on the nodes: of the job on its first node, and of each rank.

All nodes share the job's directory. The first Slurm job that runs makes `begun` in it, and writes
its id there: another Slurm job for the same job ends at once. The same Slurm job again is a
requeue, and starts from the beginning. `begun/restarts` has Slurm's count of requeues, which
separates the files of an earlier attempt from those of this one.
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
exec srun --nodes="$rank" --ntasks="$rank" --ntasks-per-node=1 --cpus-per-task="$cores" \\
  --kill-on-bad-exit=1 --export=ALL --input=none --output=/dev/null --error=begun/srun.txt \\
  /bin/sh "$folder/rank.sh" "$folder" "$restarts"
"""
"""The script of the first node.

`node-<rank>.txt` has the host name of a node, which may differ from Slurm's name of it.
"""

RANK = (
    peers.WRITE_HOSTS_SCRIPT
    + """
control=$1/replica-$SLURM_PROCID
# The wrapper outlives SIGTERM, to write the exit code; the program gets SIGTERM's default again.
trap '' TERM
if [ -s "$1/peers" ]; then
  rm -f "$control/hosts"
  why=$(write_hosts "$1/peers" /etc/hosts "$control/hosts") || {
    [ "$(cat "$1/begun/restarts")" = "$2" ] || exit 0
    failed="$1/begun/failed"
    echo "$why" > "$failed.$SLURM_PROCID" && mv "$failed.$SLURM_PROCID" "$failed"
    exit 1
  }
fi
mkdir "$control/started" || exit 0
echo $$ > "$control/pid.new" && mv "$control/pid.new" "$control/pid"
echo "$SLURMD_NODENAME" > "$control/host.new" && mv "$control/host.new" "$control/host"
/bin/sh "$control/command.sh"
code=$?
# A node that Slurm gave up may still run an attempt that another one has followed.
[ "$(cat "$1/begun/restarts")" = "$2" ] || exit 0
echo $code > "$control/exit-code.new" && mv "$control/exit-code.new" "$control/exit-code"
exit $code
"""
)

EXEC_SCRIPT = """
control=$1 has_sandbox=$2
shift 2
wrapper=$(cat "$control/pid")
# The rank runs as soon as its host is known; its sandbox needs a moment more.
for attempt in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  outer=$(pgrep -P "$wrapper" | head -n 1)
  inner=${outer:+$(pgrep -P "$outer" | head -n 1)}
  program=${inner:+$(pgrep -P "$inner" | head -n 1)}
  [ "$has_sandbox" = yes ] && [ -z "$program" ] && kill -0 "$wrapper" 2> /dev/null || break
  sleep 0.25
done
if [ "$has_sandbox" = yes ] && [ -z "$program" ]; then
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
  nsenter --target "$program" --all --preserve-credentials --wd="/proc/$program/cwd" -- \\
  setpriv $rights env -i
"""
"""Runs a command in a replica on its node.

It has the namespaces and the environment of the replica's program, without root's rights over the
node. A program that is not in its sandbox yet is waited for, and never entered.
"""


def write(directory: Path, replicas: Sequence[ReplicaStart], peers: str) -> None:
    """Write the scripts of a job and its file `peers`. Idempotent."""
    _write(directory / "peers", peers)
    _write(directory / "batch.sh", BATCH)
    _write(directory / "rank.sh", RANK)
    # A copy: the provider may be of another release when the job begins.
    _write(directory / "starter.py", Path(launcher.__file__).read_text())
    for replica in replicas:
        words = [
            *STARTER,
            str(directory / "starter.py"),
            str(replica.stdout),
            str(replica.stderr),
            *replica.command,
        ]
        _write(
            directory / f"replica-{replica.rank}" / "command.sh",
            f"exec {shlex.join(words)} < /dev/null\n",
        )


def _write(file: Path, text: str) -> None:
    """Replace a file atomically: the job may be reading it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.new")
    new.write_text(text)
    new.replace(file)
