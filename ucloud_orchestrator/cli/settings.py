"""The options that commands share, and the connection that they describe."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from client import Actor, JobClient
from client.errors import map_errors
from ucloud_orchestrator.temporal.connection import connect_to_temporal

T = TypeVar("T")

STACK_FILE = "stack.json"
DEFAULT_DATA_DIR = Path(".ucloud")

DataDir = Annotated[
    Path, typer.Option(help="The folder of the stack that `dev` runs.", envvar="UCLOUD_DATA_DIR")
]
User = Annotated[str | None, typer.Option(help="The user; by default you.", envvar="UCLOUD_USER")]
Project = Annotated[
    str | None, typer.Option(help="The project; by default none.", envvar="UCLOUD_PROJECT")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def stack_address(data_dir: Path) -> str | None:
    """Return Temporal's address in the stack that runs in `data_dir`.

    None if there is no such stack, or if the environment has settings of Temporal's own.
    """
    if any(os.environ.get(f"TEMPORAL_{name}") for name in ("ADDRESS", "PROFILE", "CONFIG_FILE")):
        return None
    try:
        address = json.loads((data_dir / STACK_FILE).read_text())["temporal"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return address if isinstance(address, str) else None


async def connect(data_dir: Path, user: str | None, project: str | None) -> JobClient:
    """Connect as this user and project.

    Raises `Unreachable`, or another `OrchestratorError` if the settings are wrong.
    """
    actor = Actor(username=user or getpass.getuser(), project=project)
    address = stack_address(data_dir)
    if address is None:
        return await JobClient.connect(actor)
    with map_errors():
        # The user's Temporal profiles are for other servers than the stack of `dev`.
        return JobClient(await connect_to_temporal(address, configured=False), actor)


def call(
    data_dir: Path,
    user: str | None,
    project: str | None,
    request: Callable[[JobClient], Awaitable[T]],
) -> T:
    """Connect, and return the answer to the request. Raises as `connect` and the request."""

    async def run() -> T:
        return await request(await connect(data_dir, user, project))

    return asyncio.run(run())
