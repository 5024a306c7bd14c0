"""Sessions from the command line to what is seen: desktops, terminals, web applications, public links, and who gets in.

Everything starts with a job that was submitted to a whole stack, and goes by the address that its user is given.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import InvalidStatus

from tests.conditions import eventually
from tests.end_to_end.chromium import Chromium, chromium, need
from tests.end_to_end.desktops import DESKTOP, NEEDED, PASSWORD, is_connected, type_until_green
from tests.end_to_end.running_stack import Stack
from tests.provider import web_application
from tests.provider.web_jobs import PACKAGES, PYTHON, USUAL_FOLDERS, free_port

LINK = "my-app.localhost"
"""The public link's domain; browsers find such names on the loopback."""
PORT = {name: free_port() for name in ("desktop", "speeches", "page")}
"""Of their own, since jobs may share this machine's network."""
SPEECHES = """
import sqlite3
with sqlite3.connect("speeches.db") as connection:
    connection.execute("create table speeches (id integer primary key, speaker text)")
    connection.executemany("insert into speeches (speaker) values (?)", [("Ada",), ("Grace",)])
"""
DATASETTE = f"""
"$0" -c '{SPEECHES}'
exec "$0" -m datasette serve speeches.db --host 127.0.0.1 --port {PORT["speeches"]} \\
  --setting base_url /ucloud/local/sessions/web/$UCLOUD_JOB_ID/$UCLOUD_RANK/
"""
SPEAK = """
const [done] = arguments;
const socket = new WebSocket(`ws://${location.host}/echo`);
socket.onerror = () => done("error");
socket.onmessage = () => {
  socket.onmessage = (event) => done(event.data);
  socket.send("from a browser");
};
"""
"""Says something to a page's WebSocket after its greeting, and waits for the answer."""


def application(name: str, kind: str, *invocation: str, **more: Any) -> dict[str, Any]:
    """A document for the catalog."""
    common = {"title": name, "version": "1", "authors": ["UCloud"], "description": name, "outputFileGlobs": []}
    environment = {"PYTHONPATH": f"/work/{PACKAGES.name}", "PYTHONDONTWRITEBYTECODE": "1"}
    tool = {"name": "system", "version": "1"}
    fixed = {"application": "v1", "name": name, "tool": tool, "applicationType": kind, "environment": environment}
    return fixed | common | {"invocation": list(invocation)} | more


CATALOG = [
    application(
        "desktop",
        "VNC",
        *("sh", "-c", DESKTOP.format(port=PORT["desktop"], display=PORT["desktop"])),
        vnc={"port": PORT["desktop"], "password": PASSWORD},
    ),
    application("speeches", "WEB", "sh", "-c", DATASETTE, PYTHON, web={"port": PORT["speeches"]}),
    application(
        "page",
        "WEB",
        *(PYTHON, "web_application.py", "127.0.0.1", str(PORT["page"])),
        web={"port": PORT["page"]},
        allowPublicLink=True,
        allowMultiNode=True,
    ),
    {"publicLink": "v1", "id": "my-app", "domain": LINK, "provider": "local", "public": ["EDIT"]},
    {"drive": "v1", "id": "python", "provider": "local", "public": ["READ"]},
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose jobs can use this Python and its packages; it ends with what runs in it."""
    folder = tmp_path_factory.mktemp("sessions")
    system = [] if PYTHON.startswith(USUAL_FOLDERS) else [sys.base_prefix]
    settings = folder / "provider.toml"
    settings.write_text(
        f"system_folders = {json.dumps(system)}\ndrives = {{python = {json.dumps(str(PACKAGES.parent))}}}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UCLOUD_PROVIDER_CONFIG", str(settings))
        running = Stack(folder, "".join(f"\n---\n{json.dumps(document)}" for document in CATALOG))
        shutil.copy(web_application.__file__, folder / "files")
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture(scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chromium]:
    async with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def job_file(stack: Stack, application: str, *resources: dict[str, Any], **changes: Any) -> str:
    """A job of that application, with this Python's packages and `web_application.py`."""
    files = (f"/python/{PACKAGES.name}", "/examples/web_application.py")
    given = [{"type": "file", "path": path, "readOnly": True} for path in files]
    file = stack.job_file(application, "1")
    document = json.loads(file.read_text()) | {"resources": [*given, *resources], "allowDuplicateJob": True}
    file.write_text(json.dumps(document | changes))
    return str(file)


def running(stack: Stack, file: str) -> str:
    """The job of that file, which runs."""
    job_id = str(stack.json("submit", file)["id"])
    stack.reached(job_id, "RUNNING")
    return job_id


def ended(stack: Stack, job_id: str) -> None:
    assert stack.run("cancel", job_id).returncode == 0
    stack.reached(job_id, "SUCCESS")


def address(stack: Stack, job_id: str, kind: str) -> str:
    """What `open` prints."""
    done = stack.run("open", job_id, "--type", kind)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.timeout(180)
async def test_a_desktop_and_a_terminal_of_one_job_are_seen_and_typed_into(stack: Stack, browser: Chromium) -> None:
    need(*NEEDED)
    job_id = running(stack, job_file(stack, "desktop"))
    await eventually(lambda: is_connected(browser, address(stack, job_id, "vnc")), 90)
    assert await browser.do(lambda: browser.driver.title) == "Speeches"
    assert "token" not in await browser.do(lambda: browser.driver.current_url)
    await type_until_green(browser, "Ada")
    await browser.picture("stack-desktop")
    await browser.go(stack.json("open", job_id, "--type", "shell")["page"])
    await browser.type("echo $((6*7)) in $UCLOUD_JOB_ID: $(cat speaker)\n", ".xterm-helper-textarea")

    async def answers() -> bool:
        shown = (await browser.text(".xterm-rows")).replace("\xa0", " ").replace("\n", "")
        return f"42 in {job_id}: Ada" in shown

    await eventually(answers, 60)
    await browser.picture("stack-terminal")
    ended(stack, job_id)
    await eventually(lambda: browser.text("#message"), 30)


@pytest.mark.timeout(180)
async def test_a_web_application_opens_by_its_address_once(stack: Stack, browser: Chromium) -> None:
    job_id = running(stack, job_file(stack, "speeches"))
    opened = address(stack, job_id, "web")
    await browser.go(opened)

    async def shows(text: str) -> bool:
        return text in await browser.text()

    await eventually(lambda: shows("2 rows in 1 table"), 90)  # it asks again by itself until the application answers
    assert "token" not in await browser.do(lambda: browser.driver.current_url)
    await browser.go(f"{stack.ready['provider']}/ucloud/local/sessions/web/{job_id}/0/speeches/speeches?speaker=Grace")
    await eventually(lambda: shows('1 row where speaker = "Grace"'), 30)
    await browser.picture("stack-web-application")
    async with httpx.AsyncClient(trust_env=False) as another:
        assert (await another.get(opened)).status_code == 401
    ended(stack, job_id)


async def echoed(stack: Stack, text: str) -> str:
    """What the public link's application answers by WebSocket. Raises `InvalidStatus`, or `ConnectionClosed`."""
    port = httpx.URL(stack.ready["provider"]).port
    async with connect_websocket(f"ws://{LINK}:{port}/echo", host="127.0.0.1", port=port, proxy=None) as socket:
        await socket.recv()  # its greeting
        await socket.send(text)
        return str(await socket.recv())


@pytest.mark.timeout(180)
async def test_a_public_link_leads_to_the_job_that_holds_it_until_that_ends(stack: Stack, browser: Chromium) -> None:
    file = job_file(stack, "page", {"type": "ingress", "id": "my-app"})
    provider = httpx.URL(stack.ready["provider"])
    async with httpx.AsyncClient(base_url=provider, headers={"Host": LINK}, trust_env=False) as anybody:

        async def served_by() -> str:
            answer = await anybody.put("/x?y=1", content=b"four")
            if answer.status_code == 503:
                return ""
            told = answer.json()
            assert (told["rank"], told["target"], told["size"]) == ("0", "/x?y=1", 4)
            return str(told["job"])

        first = running(stack, file)
        assert await eventually(served_by, 60) == first
        assert await echoed(stack, "hello") == "hello"
        refused = stack.run("submit", file)
        assert (refused.returncode, refused.stderr) == (2, f"The public link my-app is in use by the job {first}.\n")
        await browser.go(f"http://{LINK}:{provider.port}/a-page")
        assert await browser.do(browser.driver.execute_async_script, SPEAK) == "from a browser"
        assert first in await browser.text()
        await browser.picture("stack-public-link")
        ended(stack, first)
        assert (await anybody.get("/")).status_code == 401
        with pytest.raises(InvalidStatus) as closed:
            await echoed(stack, "hello")
        assert closed.value.response.status_code == 403
        second = running(stack, file)
        assert await eventually(served_by, 60) == second
        ended(stack, second)
