"""Network namespaces of this machine: how one is held, entered, wired to others and given a way
out.

A namespace is held by a process that does nothing, `cat <folder>/hold` on a named pipe that nobody
writes to: its arguments tell whose it is, and it needs neither root nor this process to live on. It
ends when it is killed, or when the last of those that keep the pipe open for writing has ended, so
that it outlives neither its job nor a provider that never comes back. Without root the first
namespace makes a user namespace as well, and the others join it, since only then can they be wired
to each other.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import psutil

from ucloud_orchestrator.provider.errors import NetworkError
from ucloud_orchestrator.provider.sandbox import bubblewrap

log = logging.getLogger(__name__)

HOLDER = """
"$2" -batch - <<END || exit
link set lo up
addr add 100.$((64 + ($$ >> 16))).$((($$ >> 8) & 255)).$(($$ & 255))/32 dev lo
END
echo 0 2> /dev/null > /proc/sys/net/ipv4/ip_forward
echo $$ > "$1/pid.new" && mv "$1/pid.new" "$1/pid" && exec 3<> "$3" cat "$1/hold" > /dev/null 2>&1
"""
"""Nothing is forwarded: a machine that forwards, as one with Docker does, hands that on to its
namespaces.
"""
ADDRESSES = ipaddress.IPv4Network("100.64.0.0/10")
"""As many addresses as Linux can have processes (2^22): a namespace has the one with its holder's
number.
"""
SLIRP_NETWORK = ipaddress.IPv4Network("198.18.0.0/24")
"""What slirp4netns uses inside: a range that is reserved for measurements, so that no real network
is hidden by it.
"""
NAME_SERVER = SLIRP_NETWORK[3]
"""Where slirp4netns passes questions on to the machine's own name server."""
TIMEOUT = 20.0
"""Seconds that a command on namespaces may take; all need milliseconds."""
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


@cache
def unavailable_reason() -> str | None:
    """Why jobs cannot have networks of their own on this machine, in a sentence; None if they
    can.
    """
    if not bubblewrap.is_available():
        return "there is no sandbox."
    missing = [name for name in ("ip", "nsenter", "setsid", "unshare") if _program(name) is None]
    if missing:
        return f"these programs are missing: {', '.join(missing)}."
    # All that a job may need: its own interfaces, a bridge between replicas, and a sandbox inside.
    script = '"$0" link set lo up && "$0" link add mates type bridge && exec "$@"'
    inside = bubblewrap.probe_command()
    tried = _run([*_creation(None), "/bin/sh", "-c", script, _program("ip") or "ip", *inside])
    return None if tried.returncode == 0 else f"{tried.stderr.strip() or 'namespaces do not work'}."


@cache
def internet_unavailable_reason() -> str | None:
    """Why networks of jobs cannot have a way out, in a sentence; None if they can."""
    if _program("slirp4netns") is None:
        return "slirp4netns is not installed."
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "slirp4netns cannot open /dev/net/tun."
    return None


def address(holder: int) -> str:
    """The address of the namespace with this holder, from every namespace that it is wired to."""
    return str(ADDRESSES[holder])


def create(folder: Path, companion: int | None, outlived_by: Path | None = None) -> int:
    """Make a namespace unless the folder's holder lives; returns the holder. Raises `NetworkError`.

    `companion` is the holder of a namespace to which this one shall be wired, if there is one yet;
    the namespace in the folder `outlived_by` does not end before this one.
    """
    if (holder := find(folder)) is not None:
        return holder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.mkfifo(folder / "hold", 0o600)
    # slirp4netns ends when the last writer of this pipe has ended, which is the holder.
    until, while_held = os.pipe()
    try:
        command = [
            *_creation(companion),
            "/bin/sh",
            "-c",
            HOLDER,
            "holder",
            str(folder),
            _program("ip") or "ip",
        ]
        command.append("/dev/null" if outlived_by is None else str(outlived_by / "hold"))
        done = _run(["setsid", "--fork", *command], pass_fds=(while_held,))
        os.close(while_held)
        while_held = -1
        holder = _wait_for_holder(folder)
        if holder is None:
            raise NetworkError(f"The job's network could not be made: {done.stderr.strip()}")
        if internet_unavailable_reason() is None:
            _open_way_out(folder, holder, until)
    finally:
        os.close(until)
        if while_held >= 0:
            os.close(while_held)
    return holder


def _wait_for_holder(folder: Path) -> int | None:
    """The shell closes its output just before it becomes the holder, so what was started is there
    in a moment.
    """
    until = time.monotonic() + TIMEOUT
    while (folder / "pid").exists() and time.monotonic() < until:
        if (holder := find(folder)) is not None:
            return holder
        time.sleep(0.005)
    return None


def find(folder: Path) -> int | None:
    """The living holder of a folder's namespace; another process with its number is not taken for
    it.
    """
    holder = last(folder)
    with contextlib.suppress(psutil.Error):
        if holder is not None and psutil.Process(holder).cmdline() == ["cat", str(folder / "hold")]:
            return holder
    return None


def last(folder: Path) -> int | None:
    """The holder of a folder's namespace, whether it lives or not."""
    with contextlib.suppress(OSError, ValueError):
        return int((folder / "pid").read_text())
    return None


def holders(below: Path) -> Iterator[tuple[Path, psutil.Process]]:
    """All living holders whose folders lie below a folder, also when the folders are gone."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if (
            len(words) == 2
            and words[0] == "cat"
            and words[1].startswith(f"{below}/")
            and words[1].endswith("/hold")
        ):
            yield Path(words[1]).parent, process


def kill(holder: int) -> None:
    """End a holder, and with it all that holds on to it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(holder, signal.SIGKILL)


def entering(holder: int) -> list[str]:
    """The words before a command that is to run in the namespace."""
    nsenter = _program("nsenter") or "nsenter"
    if _by_root():
        return [nsenter, f"--net=/proc/{holder}/ns/net", "--"]
    return [nsenter, "--target", str(holder), "--user", "--preserve-credentials", "--net", "--"]


def configure(holder: int, lines: Sequence[str]) -> None:
    """Have `ip` do what the lines say, inside the namespace. Raises `NetworkError`."""
    done = _run(
        [*entering(holder), _program("ip") or "ip", "-batch", "-"], given="\n".join(lines) + "\n"
    )
    if done.returncode != 0:
        raise NetworkError(f"The job's network could not be wired: {done.stderr.strip()}")


def remove_links(holder: int, names: Sequence[str]) -> None:
    """Delete interfaces that an interrupted attempt may have left."""
    lines = "".join(f"link del {name}\n" for name in names)
    _run([*entering(holder), _program("ip") or "ip", "-force", "-batch", "-"], given=lines)


def _open_way_out(folder: Path, holder: int, until: int) -> None:
    """Attach slirp4netns; without it the job runs all the same, and cannot reach anything
    outside.
    """
    ready, attached = os.pipe()
    words = [
        "slirp4netns",
        "--configure",
        "--mtu=65520",
        "--disable-host-loopback",
        f"--cidr={SLIRP_NETWORK}",
    ]
    words += [f"--exit-fd={until}", f"--ready-fd={attached}", "--netns-type=path"]
    if not _by_root():
        words.append(f"--userns-path=/proc/{holder}/ns/user")
    words += [f"/proc/{holder}/ns/net", "tap0"]
    try:
        with (folder / "slirp4netns.log").open("wb") as output:
            _run(["setsid", "--fork", *words], pass_fds=(until, attached), output=output.fileno())
        os.close(attached)
        attached = -1
        attachment = select.poll()  # `select` knows no descriptors beyond 1023
        attachment.register(ready, select.POLLIN)
        if not attachment.poll(TIMEOUT * 1000) or os.read(ready, 1) != b"1":
            said = (folder / "slirp4netns.log").read_text(errors="replace").strip()
            log.warning("The network of %s has no way out: %s", folder, said)
    finally:
        os.close(ready)
        if attached >= 0:
            os.close(attached)


def _creation(companion: int | None) -> list[str]:
    if _by_root():
        return ["unshare", "--net", "--"]
    if companion is None:
        return ["unshare", "--user", "--map-root-user", "--net", "--"]
    joined = ["nsenter", "--target", str(companion), "--user", "--preserve-credentials", "--"]
    return [*joined, "unshare", "--net", "--"]


@cache
def _by_root() -> bool:
    """Whether a user namespace is not needed; in a container without rights root needs one too."""
    return os.geteuid() == 0 and _run(["unshare", "--net", "--", "true"]).returncode == 0


@cache
def _program(name: str) -> str | None:
    return shutil.which(name, path=_PATH)


def _run(
    command: Sequence[str],
    *,
    given: str = "",
    pass_fds: Sequence[int] = (),
    output: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, or until all that it left behind has closed its output."""
    channels = subprocess.PIPE if output is None else output
    program = _program(command[0]) or command[0]
    try:
        return subprocess.run(
            [program, *command[1:]],
            input=given,
            stdout=channels,
            stderr=channels,
            text=True,
            timeout=TIMEOUT,
            pass_fds=pass_fds,
            check=False,
            env={"PATH": _PATH, "LANG": "C.UTF-8"},
        )
    except subprocess.TimeoutExpired as error:
        raise NetworkError(
            f"The command {command[0]} did not end within {TIMEOUT:.0f} s."
        ) from error
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))
