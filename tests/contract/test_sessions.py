"""Terminals, web applications and desktops of running jobs, where the product supports them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect as connect_websocket

from tests.contract.orchestrator import ContractOrchestrator
from ucloud_orchestrator.models.session import (
    OPEN_SESSION,
    OpenSession,
    ShellSession,
    VncSession,
    WebSession,
)

Make = Callable[..., dict[str, Any]]


async def opened(orchestrator: ContractOrchestrator, *items: dict[str, Any]) -> list[OpenSession]:
    """Open a session for each item."""
    answer = await orchestrator.post("interactiveSession", *items)
    assert answer.is_success, (
        f"`interactiveSession` of a running job must succeed; it got {answer.text}."
    )
    responses = answer.json().get("responses")
    assert isinstance(responses, list), (
        f"`interactiveSession` must answer with `responses`; it said {answer.text}."
    )
    assert len(responses) == len(items), (
        "`interactiveSession` must give one response for each item."
    )
    try:
        sessions = [OPEN_SESSION.validate_python(response) for response in responses]
    except ValueError as error:
        pytest.fail(f"A session must have the form of its `type`: {error}")
    for item, session in zip(items, sessions, strict=True):
        assert (session.job_id, session.rank) == (item["job"]["id"], item["rank"]), (
            "A session must name the job and the rank that were asked for; it named "
            f"{session.job_id}, {session.rank}."
        )
    return sessions


def session(job: dict[str, Any], kind: str, rank: int = 0) -> dict[str, Any]:
    return {"job": job, "rank": rank, "sessionType": kind}


async def assert_rejected(
    orchestrator: ContractOrchestrator, item: dict[str, Any], what: str
) -> None:
    answer = await orchestrator.post("interactiveSession", item)
    assert 400 <= answer.status_code < 500, (
        f"A session of {what} must be rejected with 4xx; it got {answer.text}."
    )
    assert answer.json().get("why"), f"A rejection must say `why`; it said {answer.text!r}."


async def test_a_terminal_is_opened_on_each_rank(
    orchestrator: ContractOrchestrator, job: Make, support: dict[str, Any]
) -> None:
    if not support.get("terminal"):
        pytest.skip("The product does not support `terminal`.")
    made = await orchestrator.created(job("sleep 300", replicas=2))
    await orchestrator.running(made)
    sessions = await opened(orchestrator, *(session(made, "SHELL", rank) for rank in (0, 1)))
    shells = [
        each for each in sessions if isinstance(each, ShellSession) and each.session_identifier
    ]
    assert len(shells) == 2, (
        f"A SHELL session must have a `sessionIdentifier`; they were {sessions}."
    )
    assert shells[0].session_identifier != shells[1].session_identifier, (
        "Two ranks must not share an identifier."
    )
    for rank, url in enumerate(shell.url for shell in shells if shell.url):  # ours, not UCloud's
        output = await run_in_terminal(
            url, "cat /etc/ucloud/rank.txt; exit\n", orchestrator.timeout
        )
        assert str(rank) in output.split(), (
            f"The terminal of rank {rank} must be in that replica; it showed {output!r}."
        )
    await assert_rejected(orchestrator, session(made, "SHELL", 2), "a rank that does not exist")
    await orchestrator.post("terminate", made)
    await orchestrator.end_of(made)
    await assert_rejected(orchestrator, session(made, "SHELL"), "a job that has ended")


async def test_an_unknown_job_has_no_session(
    orchestrator: ContractOrchestrator, job: Make, support: dict[str, Any]
) -> None:
    kinds = [name for name in ("terminal", "web", "vnc") if support.get(name)]
    if not kinds:
        pytest.skip("The product does not support sessions.")
    kind = {"terminal": "SHELL", "web": "WEB", "vnc": "VNC"}[kinds[0]]
    await assert_rejected(
        orchestrator, session(job("true"), kind), "a job that the provider does not know"
    )


async def test_a_web_application_has_an_address(
    orchestrator: ContractOrchestrator, job: Make, support: dict[str, Any]
) -> None:
    if not support.get("web"):
        pytest.skip("The product does not support `web`.")
    made = job("sleep 300")
    made["status"]["resolvedApplication"]["application"] |= {
        "applicationType": "WEB",
        "web": {"port": 8080},
    }
    await orchestrator.running(await orchestrator.created(made))
    (found,) = await opened(orchestrator, session(made, "WEB"))
    assert isinstance(found, WebSession), (
        f"A WEB session must be of the type `web`; it was {found}."
    )
    assert urlsplit(found.redirect_client_to).scheme in {"http", "https"}, (
        f"`redirectClientTo` must be an address for a browser; it was {found.redirect_client_to!r}."
    )
    await orchestrator.post("terminate", made)
    await orchestrator.end_of(made)


async def test_a_desktop_has_a_websocket(
    orchestrator: ContractOrchestrator, job: Make, support: dict[str, Any]
) -> None:
    if not support.get("vnc"):
        pytest.skip("The product does not support `vnc`.")
    made = job("sleep 300")
    vnc = {"port": 5900, "password": "secret12"}
    made["status"]["resolvedApplication"]["application"] |= {"applicationType": "VNC", "vnc": vnc}
    await orchestrator.running(await orchestrator.created(made))
    (found,) = await opened(orchestrator, session(made, "VNC"))
    assert isinstance(found, VncSession), (
        f"A VNC session must be of the type `vnc`; it was {found}."
    )
    assert urlsplit(found.url).scheme in {"ws", "wss"}, (
        f"Its `url` must be that of a WebSocket; it was {found.url!r}."
    )
    assert found.password in {None, "secret12"}, (
        "Its `password` must be the one of the application, or none."
    )
    await orchestrator.post("terminate", made)
    await orchestrator.end_of(made)


async def run_in_terminal(url: str, text: str, timeout: float) -> str:
    """Type a text into a terminal, and return the output until it closes."""
    output = ""
    async with asyncio.timeout(timeout), connect_websocket(url) as socket:
        await socket.send(json.dumps({"type": "initialize", "cols": 80, "rows": 24}))
        await socket.send(json.dumps({"type": "input", "data": text}))
        async for message in socket:
            output += json.loads(message).get("data") or ""
    return output
