"""Open sessions by the addresses that users get: desktops, terminals, web applications, links."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import InvalidStatus

from client import JobClient, RequestRefused
from tests.end_to_end.chromium import Chromium, chromium, need
from tests.end_to_end.desktops import DESKTOP, NEEDED, PASSWORD, is_connected, type_until_green
from tests.end_to_end.running_stack import Stack
from tests.end_to_end.users import (
    application,
    catalog_of,
    client_of,
    ended,
    job_file,
    reached,
    running,
)
from tests.provider import web_application
from tests.provider.web_jobs import PACKAGES, PYTHON, SYSTEM_FOLDERS, free_port
from tests.waiting import eventually
from ucloud_orchestrator.models import JobState, ResourceAclEntry
from ucloud_orchestrator.models.session import SessionType, ShellSession, VncSession, WebSession

pytestmark = pytest.mark.long

LINK = "my-app.localhost"
"""The public link's domain; browsers find such names on the loopback."""
SETTINGS = "provider.toml"
PORT = {name: free_port() for name in ("desktop", "page")}
"""Ports of their own: jobs may share this machine's network."""
SPEAK = """
const [done] = arguments;
const socket = new WebSocket(`ws://${location.host}/echo`);
socket.onerror = () => done("error");
socket.onmessage = () => {
  socket.onmessage = (event) => done(event.data);
  socket.send("from a browser");
};
"""
"""Sends a text to a page's WebSocket after its greeting, and waits for the answer."""


ENVIRONMENT = {"PYTHONPATH": f"/work/{PACKAGES.name}", "PYTHONDONTWRITEBYTECODE": "1"}
CATALOG = catalog_of(
    application(
        "desktop",
        "VNC",
        *("sh", "-c", DESKTOP.format(port=PORT["desktop"], display=PORT["desktop"])),
        vnc={"port": PORT["desktop"], "password": PASSWORD},
    ),
    application(
        "page",
        "WEB",
        *(PYTHON, "web_application.py", "127.0.0.1", str(PORT["page"])),
        web={"port": PORT["page"]},
        environment=ENVIRONMENT,
        allowPublicLink=True,
    ),
    application(
        "doors",
        "WEB",
        *("sleep", "300"),
        web={"port": PORT["page"]},
        vnc={"port": PORT["desktop"]},
        allowMultiNode=True,
    ),
    {"publicLink": "v1", "id": "my-app", "domain": LINK, "provider": "local", "public": ["EDIT"]},
    {"drive": "v1", "id": "python", "provider": "local", "public": ["READ"]},
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a stack whose jobs can use this Python and its packages."""
    folder = tmp_path_factory.mktemp("sessions")
    system = [] if PYTHON.startswith(SYSTEM_FOLDERS) else [sys.base_prefix]
    settings = folder / SETTINGS
    settings.write_text(
        f"system_folders = {json.dumps(system)}\ndrives = {{python = "
        f"{json.dumps(str(PACKAGES.parent))}}}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UCLOUD_PROVIDER_CONFIG", str(settings))
        running = Stack(folder, CATALOG)
        shutil.copy(web_application.__file__, folder / "files")
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture(scope="module")
async def client(stack: Stack) -> JobClient:
    return await client_of(stack)


@pytest.fixture(scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chromium]:
    async with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def with_python(stack: Stack, application: str, *resources: dict[str, Any]) -> Path:
    """Run a job with this Python's packages and `web_application.py`."""
    files = (f"/python/{PACKAGES.name}", "/examples/web_application.py")
    given = [{"type": "file", "path": path, "readOnly": True} for path in files]
    return job_file(stack, application, resources=[*given, *resources])


def address(stack: Stack, job_id: str, kind: str) -> str:
    """Return the address that `open` prints."""
    done = stack.run("open", job_id, "--type", kind)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.timeout(180)
async def test_a_desktop_and_a_terminal_of_one_job(
    stack: Stack, client: JobClient, browser: Chromium
) -> None:
    need(*NEEDED)
    job_id = await running(stack, client, job_file(stack, "desktop"))
    await eventually(lambda: is_connected(browser, address(stack, job_id, "vnc")), 90)
    assert await browser.do(lambda: browser.driver.title) == "Speeches"
    assert "token" not in await browser.do(lambda: browser.driver.current_url)
    await type_until_green(browser, "Ada")
    await browser.picture("stack-desktop")
    await browser.go(stack.json("open", job_id, "--type", "shell")["page"])
    await browser.type(
        "echo $((6*7)) in $UCLOUD_JOB_ID: $(cat speaker)\n", ".xterm-helper-textarea"
    )

    async def answers() -> bool:
        shown = (await browser.text(".xterm-rows")).replace("\xa0", " ").replace("\n", "")
        return f"42 in {job_id}: Ada" in shown

    await eventually(answers, 60)
    await browser.picture("stack-terminal")
    logs = [file.read_text() for file in (stack.folder / "logs").iterdir()]
    assert not any("token=" in log for log in logs)
    await ended(client, job_id)
    await eventually(lambda: browser.text("#message"), 30)


async def echoed(stack: Stack, text: str) -> str:
    """Return the answer of the public link's application by WebSocket.

    Raises `InvalidStatus`, or `ConnectionClosed`.
    """
    port = httpx.URL(stack.ready["provider"]).port
    async with connect_websocket(
        f"ws://{LINK}:{port}/echo", host="127.0.0.1", port=port, proxy=None
    ) as socket:
        await socket.recv()  # its greeting
        await socket.send(text)
        return str(await socket.recv())


@pytest.mark.timeout(180)
async def test_a_public_link_leads_to_its_job_until_the_end(
    stack: Stack, client: JobClient, browser: Chromium
) -> None:
    file = with_python(stack, "page", {"type": "ingress", "id": "my-app"})
    provider = httpx.URL(stack.ready["provider"])
    async with httpx.AsyncClient(
        base_url=provider, headers={"Host": LINK}, trust_env=False, verify=False
    ) as anybody:

        async def served_by() -> str:
            answer = await anybody.put("/x?y=1", content=b"four")
            if answer.status_code == 503:
                return ""
            received = answer.json()
            assert (received["rank"], received["target"], received["size"]) == ("0", "/x?y=1", 4)
            return str(received["job"])

        first = await running(stack, client, file)
        assert await eventually(served_by, 60) == first
        assert await echoed(stack, "hello") == "hello"
        rejected = stack.run("submit", str(file))
        assert (rejected.returncode, rejected.stderr) == (
            2,
            f"The public link my-app is in use by the job {first}.\n",
        )
        await browser.go(f"http://{LINK}:{provider.port}/a-page")
        assert await browser.do(browser.driver.execute_async_script, SPEAK) == "from a browser"
        assert first in await browser.text()
        await browser.picture("stack-public-link")
        await ended(client, first)
        assert (await anybody.get("/")).status_code == 401
        with pytest.raises(InvalidStatus) as closed:
            await echoed(stack, "hello")
        assert closed.value.response.status_code == 403
        second = await running(stack, client, file)
        assert await eventually(served_by, 60) == second
        await ended(client, second)


async def addresses(client: JobClient, job_id: str, rank: int = 0) -> dict[str, str]:
    """New addresses of all kinds of session of a rank."""
    shell = await client.open_session(job_id, SessionType.SHELL, rank)
    web = await client.open_session(job_id, SessionType.WEB, rank)
    vnc = await client.open_session(job_id, SessionType.VNC, rank)
    assert isinstance(shell, ShellSession)
    assert isinstance(web, WebSession)
    assert isinstance(vnc, VncSession)
    found = {"terminal": shell.page, "shell": shell.url, "web": web.redirect_client_to}
    return {kind: str(url) for kind, url in (found | {"desktop": vnc.page, "vnc": vnc.url}).items()}


async def answer(address: str) -> tuple[int, str]:
    """The status with which an address answers, and why; if it lets in, only the status."""
    if address.startswith("ws"):
        try:
            async with connect_websocket(address, proxy=None):
                return 101, ""
        except InvalidStatus as error:
            status, body = error.response.status_code, error.response.body
    else:
        async with httpx.AsyncClient(trust_env=False, verify=False) as anybody:
            got = await anybody.get(address)
        if got.status_code < 400:
            return got.status_code, ""
        status, body = got.status_code, got.content
    received = json.loads(body)
    assert set(received) == {"why"}
    return status, str(received["why"])


def with_key_of(address: str, other: str, *names: str) -> str:
    """Return the address with these parts of the other key."""
    given = httpx.URL(other).params
    return str(httpx.URL(address).copy_merge_params({name: given[name] for name in names}))


OPENS = {"terminal": 200, "shell": 101, "web": 303, "desktop": 200}
"""The status of an address that is opened with its own key."""


async def test_an_address_opens_once_with_its_own_key(stack: Stack, client: JobClient) -> None:
    job_id = await running(stack, client, job_file(stack, "doors", replicas=2))
    other_id = await running(stack, client, job_file(stack, "doors"))
    own, neighbour, other = [
        await addresses(client, *where) for where in ((job_id, 0), (job_id, 1), (other_id, 0))
    ]
    for kind, address in own.items():
        wrong = {
            "no token": (address.partition("?")[0], 401),
            "nonsense": (str(httpx.URL(address).copy_set_param("token", "nonsense")), 401),
            "no verifier": (str(httpx.URL(address).copy_remove_param("verifier")), 401),
            "a token of another job": (with_key_of(address, other[kind], "token"), 401),
            "a token of another rank": (with_key_of(address, neighbour[kind], "token"), 401),
        }
        for name, foreign in own.items():
            if {kind, name} not in ({"terminal", "shell"}, {"desktop", "vnc"}, {kind}):
                wrong[f"the key of {name}"] = (
                    with_key_of(address, foreign, "token", "verifier"),
                    403,
                )
        for name, foreign in (("job", other["web"]), ("rank", neighbour["web"])):
            if (
                kind == "web"
            ):  # the others' addresses are the same for all jobs: the key says which one is opened
                wrong[f"the key of another {name}"] = (
                    with_key_of(address, foreign, "token", "verifier"),
                    403,
                )
        for name, (changed, status) in wrong.items():
            got = await answer(changed)
            assert got[0] == status, f"{kind} with {name}: {got}"
    for kind, status in OPENS.items():
        assert await answer(own[kind]) == (status, "")
        assert await answer(other[kind]) == (status, "")
    await answer(own["vnc"])  # no server listens there, but the key is used up
    for kind, address in own.items():
        assert await answer(address) == (
            401,
            "The session's token was used before; ask for a new session.",
        ), kind
    after = await addresses(client, other_id)
    await ended(client, other_id)
    for kind in ("desktop", "shell", "vnc"):
        assert await answer(after[kind]) == (409, "The job does not run any more.")
    await ended(client, job_id)


async def test_only_editors_of_a_running_job_get_an_address(
    stack: Stack, client: JobClient
) -> None:
    bob = await client_of(stack, "bob")
    job_id = stack.submit("web-files.yaml")
    await reached(client, job_id, JobState.RUNNING)
    rejected = stack.run("open", job_id, "--type", "web", "--user", "bob")
    assert (rejected.returncode, rejected.stdout, rejected.stderr) == (
        2,
        "",
        f"There is no job {job_id}.\n",
    )
    reader = {"entity": {"type": "user", "username": "bob"}, "permissions": ["READ"]}
    await client.update_acl(job_id, [ResourceAclEntry.model_validate(reader)])
    assert (await bob.retrieve(job_id)).id == job_id
    with pytest.raises(RequestRefused, match="EDIT is needed"):
        await bob.open_session(job_id, SessionType.WEB)
    await client.suspend(job_id)
    await reached(client, job_id, JobState.SUSPENDED)
    for kind in (SessionType.SHELL, SessionType.WEB):
        with pytest.raises(
            RequestRefused, match="The job is in state SUSPENDED; sessions are for jobs that run"
        ):
            await client.open_session(job_id, kind)
    await client.unsuspend(job_id)
    await reached(client, job_id, JobState.RUNNING)
    assert await answer(address(stack, job_id, "web")) == (303, "")
    await ended(client, job_id)
    rejected = stack.run("open", job_id, "--type", "web")
    assert (rejected.returncode, rejected.stdout) == (2, "")


async def test_an_expired_address_opens_nothing(stack: Stack, client: JobClient) -> None:
    settings = stack.folder / SETTINGS
    settings.write_text(f"session_lifetime = 1\n{settings.read_text()}")
    stack.kill("provider")

    async def is_served() -> bool:
        try:
            return (await answer(f"{stack.ready['provider']}/ucloud/local/sessions/terminal"))[
                0
            ] == 401
        except httpx.ConnectError:
            return False

    await eventually(is_served, 40)
    job_id = await running(stack, client, job_file(stack, "doors"))
    given = await addresses(client, job_id)
    expired = (401, "The session's token is not valid, or has expired.")

    async def is_over() -> bool:
        # It was requested last, and its page does not use the token up.
        return await answer(given["desktop"]) == expired

    await eventually(is_over)
    assert {kind: await answer(address) for kind, address in given.items()} == dict.fromkeys(
        given, expired
    )
    await ended(client, job_id)
