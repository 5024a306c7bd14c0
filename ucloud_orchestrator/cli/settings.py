"""Where the orchestrator is, and who acts."""

from __future__ import annotations

import getpass
import json
import os
from pathlib import Path
from typing import Annotated

import typer

from client import Actor, JobClient
from client.errors import map_errors
from ucloud_orchestrator.temporal.connection import connect_to_temporal

STACK_FILE = "stack.json"
DEFAULT_DATA_DIR = Path(".ucloud")

DataDir = Annotated[
    Path, typer.Option(help="The folder of the stack that `dev` runs.", envvar="UCLOUD_DATA_DIR")
]
User = Annotated[str | None, typer.Option(help="Who acts; by default you.", envvar="UCLOUD_USER")]
Project = Annotated[
    str | None, typer.Option(help="The project; by default none.", envvar="UCLOUD_PROJECT")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def stack_address(data_dir: Path) -> str | None:
    """The address of the stack that runs in `data_dir`; None leaves it to Temporal's own variables
    and profiles.
    """
    if any(os.environ.get(f"TEMPORAL_{name}") for name in ("ADDRESS", "PROFILE", "CONFIG_FILE")):
        return None
    try:
        address = json.loads((data_dir / STACK_FILE).read_text())["temporal"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return address if isinstance(address, str) else None


async def connect(data_dir: Path, user: str | None, project: str | None) -> JobClient:
    """A client for the actor.

    Raises `Unreachable`, or another `OrchestratorError` if the settings are wrong.
    """
    actor = Actor(username=user or getpass.getuser(), project=project)
    address = stack_address(data_dir)
    if address is None:
        return await JobClient.connect(actor)
    with map_errors():
        # The stack of `dev` is none of those that the user's profiles are for.
        return JobClient(await connect_to_temporal(address, configured=False), actor)
