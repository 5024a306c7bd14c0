"""The environments of the peers: one each, made once, with exactly its pinned packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent / ".peers"


class PeerUnavailable(Exception):
    """A peer cannot be measured; the text says which, why, and what to do."""


def requirements(peer: str) -> Path:
    """Return the file of its pinned packages with their hashes."""
    return HERE / f"requirements-{peer}.txt"


def python_of(peer: str, folder: Path = ENVIRONMENTS, install: bool = True) -> str:
    """Return the Python of the peer's environment, made on first use. Raises `PeerUnavailable`."""
    environment, wanted = folder / peer, requirements(peer)
    python, ready = environment / "bin" / "python", environment / "ready"
    if ready.exists() and ready.read_bytes() == wanted.read_bytes():
        return str(python)
    if not install:
        raise PeerUnavailable(
            f"{peer} is left out: it is not installed in {environment}; run without --no-install "
            "to install it."
        )
    sys.stdout.write(f"Installing {peer} into {environment}, once.\n")
    sys.stdout.flush()
    pip = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--require-hashes",
    ]
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(environment)],
        [*pip, "-r", str(wanted)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise PeerUnavailable(
                f"{peer} is left out: it cannot be installed into {environment} "
                f"({lines[-1] if lines else f'exit code {done.returncode}'}); mend that and run "
                "again."
            )
    ready.write_bytes(wanted.read_bytes())
    return str(python)


def version_of(peer: str) -> str:
    for line in requirements(peer).read_text().splitlines():
        name, _, number = line.removesuffix("\\").partition("==")
        if name == peer:
            return number.strip()
    raise ValueError(f"{requirements(peer)} does not name {peer}.")
