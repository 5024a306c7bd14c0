"""Network namespaces of this machine: create, find, join, link and connect them to the internet.

A namespace lives as long as its holder, an idle process `cat <folder>/hold` on a named pipe. The
arguments identify the holder. It needs neither root nor this process to live on. It exits when it
is killed, or when the last process that has the pipe open for writing has exited. So it outlives
neither its job nor a provider that never starts again.

Without root the first namespace also creates a user namespace, which the others join: only
namespaces of one user namespace can be linked.
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
"""It turns IP forwarding off, which namespaces inherit from a machine such as one with Docker."""
ADDRESSES = ipaddress.IPv4Network("100.64.0.0/10")
"""2^22 addresses, as many as Linux can have processes: the holder's process id is the index."""
SLIRP_NETWORK = ipaddress.IPv4Network("198.18.0.0/24")
"""The network of slirp4netns; reserved for benchmarks (RFC 2544), so it hides no real one."""
NAME_SERVER = SLIRP_NETWORK[3]
"""The address at which slirp4netns forwards DNS to the machine's name server."""
TIMEOUT = 20.0
"""Seconds for a command on namespaces; all need milliseconds."""
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


@cache
def unavailable_reason() -> str | None:
    """Return why jobs cannot have networks of their own here, as a sentence; None if they can."""
    if not bubblewrap.is_available():
        return "there is no sandbox."
    missing = [name for name in ("ip", "nsenter", "setsid", "unshare") if _program(name) is None]
    if missing:
        return f"these programs are missing: {', '.join(missing)}."
    # All that a job may need: its own interfaces, a bridge between replicas, a sandbox inside.
    script = '"$0" link set lo up && "$0" link add mates type bridge && exec "$@"'
    inside = bubblewrap.probe_command()
    probe = _run([*_unshare_prefix(None), "/bin/sh", "-c", script, _program("ip") or "ip", *inside])
    return None if probe.returncode == 0 else f"{probe.stderr.strip() or 'namespaces do not work'}."


@cache
def internet_unavailable_reason() -> str | None:
    """Return why jobs cannot reach the internet, as a sentence; None if they can."""
    if _program("slirp4netns") is None:
        return "slirp4netns is not installed."
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "slirp4netns cannot open /dev/net/tun."
    return None


def address(holder: int) -> str:
    """Return the holder's address, the same in every namespace that is linked to its own."""
    return str(ADDRESSES[holder])


def create(folder: Path, companion: int | None, outlived_by: Path | None = None) -> int:
    """Create a namespace unless the folder's holder lives, and return its holder. Idempotent.

    `companion` is the holder of a namespace whose user namespace is joined, if there is one.
    The namespace of the folder `outlived_by` ends after this one. Raises `NetworkError`.
    """
    if (holder := find(folder)) is not None:
        return holder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.mkfifo(folder / "hold", 0o600)
    # slirp4netns exits when the last writer of this pipe has exited, which is the holder.
    exit_fd, holder_fd = os.pipe()
    try:
        try:
            holder = _start_holder(folder, companion, outlived_by, holder_fd)
        finally:
            os.close(holder_fd)
        if internet_unavailable_reason() is None:
            _connect_internet(folder, holder, exit_fd)
    finally:
        os.close(exit_fd)
    return holder


def _start_holder(
    folder: Path, companion: int | None, outlived_by: Path | None, holder_fd: int
) -> int:
    fifo = "/dev/null" if outlived_by is None else str(outlived_by / "hold")
    words = ["/bin/sh", "-c", HOLDER, "holder", str(folder), _program("ip") or "ip", fifo]
    command = ["setsid", "--fork", *_unshare_prefix(companion), *words]
    done = _run(command, pass_fds=(holder_fd,))
    holder = _wait_for_holder(folder)
    if holder is None:
        raise NetworkError(f"The job's network could not be made: {done.stderr.strip()}")
    return holder


def _wait_for_holder(folder: Path) -> int | None:
    """The shell writes its id and closes its output just before it execs the holder."""
    deadline = time.monotonic() + TIMEOUT
    while (folder / "pid").exists() and time.monotonic() < deadline:
        if (holder := find(folder)) is not None:
            return holder
        time.sleep(0.005)
    return None


def find(folder: Path) -> int | None:
    """Return the living holder of the folder's namespace; a reused process id does not count."""
    holder = last_holder(folder)
    with contextlib.suppress(psutil.Error):
        if holder is not None and psutil.Process(holder).cmdline() == ["cat", str(folder / "hold")]:
            return holder
    return None


def last_holder(folder: Path) -> int | None:
    """Return the last holder of the folder's namespace, which may have exited."""
    with contextlib.suppress(OSError, ValueError):
        return int((folder / "pid").read_text())
    return None


def holders(below: Path) -> Iterator[tuple[Path, psutil.Process]]:
    """Yield each living holder below `below` with its folder, which may be deleted already."""
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
    """Kill a holder; its slirp4netns and port forwarders exit with it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(holder, signal.SIGKILL)


def nsenter_prefix(holder: int) -> list[str]:
    """Return the words before a command that runs it in the holder's namespace."""
    nsenter = _program("nsenter") or "nsenter"
    if _can_unshare_as_root():
        return [nsenter, f"--net=/proc/{holder}/ns/net", "--"]
    return [nsenter, "--target", str(holder), "--user", "--preserve-credentials", "--net", "--"]


def configure(holder: int, lines: Sequence[str]) -> None:
    """Run `ip -batch` with these lines in the holder's namespace. Raises `NetworkError`."""
    command = [*nsenter_prefix(holder), _program("ip") or "ip", "-batch", "-"]
    done = _run(command, stdin="\n".join(lines) + "\n")
    if done.returncode != 0:
        raise NetworkError(f"The job's network could not be wired: {done.stderr.strip()}")


def remove_links(holder: int, names: Sequence[str]) -> None:
    """Delete interfaces that an interrupted attempt may have left."""
    lines = "".join(f"link del {name}\n" for name in names)
    _run([*nsenter_prefix(holder), _program("ip") or "ip", "-force", "-batch", "-"], stdin=lines)


def _connect_internet(folder: Path, holder: int, exit_fd: int) -> None:
    """Attach slirp4netns; if it fails, the job runs without the internet."""
    ready, ready_fd = os.pipe()
    words = ["slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback"]
    words += [f"--cidr={SLIRP_NETWORK}"]
    words += [f"--exit-fd={exit_fd}", f"--ready-fd={ready_fd}", "--netns-type=path"]
    if not _can_unshare_as_root():
        words.append(f"--userns-path=/proc/{holder}/ns/user")
    words += [f"/proc/{holder}/ns/net", "tap0"]
    output = folder / "slirp4netns.log"
    try:
        try:
            with output.open("wb") as file:
                command = ["setsid", "--fork", *words]
                _run(command, pass_fds=(exit_fd, ready_fd), output=file.fileno())
        finally:
            os.close(ready_fd)
        poll = select.poll()  # `select` is limited to descriptors below 1024
        poll.register(ready, select.POLLIN)
        if not poll.poll(TIMEOUT * 1000) or os.read(ready, 1) != b"1":
            reason = output.read_text(errors="replace").strip()
            log.warning("The network of %s cannot reach the internet: %s", folder, reason)
    finally:
        os.close(ready)


def _unshare_prefix(companion: int | None) -> list[str]:
    if _can_unshare_as_root():
        return ["unshare", "--net", "--"]
    if companion is None:
        return ["unshare", "--user", "--map-root-user", "--net", "--"]
    joined = ["nsenter", "--target", str(companion), "--user", "--preserve-credentials", "--"]
    return [*joined, "unshare", "--net", "--"]


@cache
def _can_unshare_as_root() -> bool:
    """Without a user namespace. In an unprivileged container even root needs one."""
    return os.geteuid() == 0 and _run(["unshare", "--net", "--", "true"]).returncode == 0


@cache
def _program(name: str) -> str | None:
    return shutil.which(name, path=_PATH)


def _run(
    command: Sequence[str],
    *,
    stdin: str = "",
    pass_fds: Sequence[int] = (),
    output: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command until it and all of its children have closed their output."""
    channels = subprocess.PIPE if output is None else output
    program = _program(command[0]) or command[0]
    try:
        return subprocess.run(
            [program, *command[1:]],
            input=stdin,
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
