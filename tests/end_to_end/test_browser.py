"""Use terminals and web applications of sandboxed jobs in a real browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.builders import shell_job
from tests.end_to_end.chromium import Chromium, chromium
from tests.provider.provider_process import Served
from tests.provider.web_jobs import (
    free_port,
    open_session_with_challenge,
    python_job,
    serving_web_jobs,
    start,
    web_job,
)
from tests.waiting import eventually
from ucloud_orchestrator.models.session import OpenSession, ShellSession, WebSession

SPEECHES = """
import sqlite3
with sqlite3.connect("speeches.db") as connection:
    connection.execute("create table speeches (id integer primary key, speaker text)")
    connection.executemany("insert into speeches (speaker) values (?)", [("Ada",), ("Grace",)])
"""


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving_web_jobs(tmp_path, web_domain="apps.localhost") as served:
        yield served


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Chromium]:
    async with chromium(tmp_path / "profile") as browser:
        yield browser


def here(provider: Served, session: OpenSession) -> str:
    """Return the address with the provider's port, which its settings do not have."""
    assert isinstance(session, WebSession)
    return str(httpx.URL(session.redirect_client_to).copy_with(port=httpx.URL(provider.url).port))


def page_of(session: OpenSession) -> str:
    """Return the address of the provider's page for the session."""
    assert isinstance(session, ShellSession)
    assert session.page is not None
    return session.page


@pytest.mark.timeout(180)
async def test_a_terminal_runs_a_typed_command(provider: Served, browser: Chromium) -> None:
    job = shell_job("exec sleep 300")
    await start(provider, job)
    page = page_of(await open_session_with_challenge(provider, job, "SHELL"))
    await browser.go(page)
    await browser.type("echo $((6*7)) in $UCLOUD_JOB_ID; stty size\n", ".xterm-helper-textarea")

    async def shows(text: str) -> bool:
        return text in (await browser.text(".xterm-rows")).replace("\xa0", " ")

    await eventually(lambda: shows(f"42 in {job['id']}"), 60)
    size = await browser.do(
        browser.driver.execute_script,
        "return document.querySelector('.xterm-rows').children.length",
    )
    await eventually(lambda: shows(f"{size} "), 30)
    await browser.picture("terminal")
    await browser.type("clear; echo ____\n", ".xterm-helper-textarea")
    await eventually(lambda: underscores_are_seen(browser), 30)
    # More than the terminal takes ahead: it comes only because what was drawn is acknowledged.
    await browser.type("yes | head -c 5000000; echo all-$((1+1))\n", ".xterm-helper-textarea")
    await eventually(lambda: shows("all-2"), 90)
    assert "token" not in await browser.do(lambda: browser.driver.current_url)
    await browser.type("exit 3\n", ".xterm-helper-textarea")
    await eventually(lambda: browser.text("#message"), 30)
    assert await browser.text("#message") == "The shell has ended with exit code 3."
    await browser.go(page)
    assert "used before" in await browser.text()
    await browser.picture("terminal-token-used-twice")


async def underscores_are_seen(browser: Chromium) -> bool:
    """Return whether underscores are visible: rows that are too low cut them off."""

    def look() -> bool:
        rows = browser.driver.find_elements("css selector", ".xterm-rows > div")
        texts = [row.text.strip() for row in rows]
        if "____" not in texts:
            return False
        written, empty = rows[texts.index("____")], rows[-1]
        return (
            texts[-1] == ""
            and written.size == empty.size
            and written.screenshot_as_png != empty.screenshot_as_png
        )

    return await browser.do(look)


@pytest.mark.timeout(180)
async def test_a_web_application_works_through_the_proxy(
    provider: Served, browser: Chromium
) -> None:
    port = free_port()
    command = (
        f"$PYTHON -c '{SPEECHES}'; exec $PYTHON -m datasette serve speeches.db --host "
        f"127.0.0.1 --port {port}"
    )
    job = python_job(command, applicationType="WEB", web={"port": port})
    await start(provider, job)
    await browser.go(here(provider, await open_session_with_challenge(provider, job, "WEB")))

    async def shows(text: str) -> bool:
        return text in await browser.text()

    await eventually(
        lambda: shows("2 rows in 1 table"), 90
    )  # it asks again by itself until the application answers
    base = await browser.do(lambda: browser.driver.current_url)
    assert base == f"http://{job['id']}-0.apps.localhost:{httpx.URL(provider.url).port}/"
    await browser.go(f"{base}speeches/speeches?speaker=Grace")
    await eventually(lambda: shows('1 row where speaker = "Grace"'), 30)
    await browser.picture("datasette")
    await browser.go(f"{base}speeches?sql=select+upper(speaker)+as+loud+from+speeches")
    await eventually(lambda: shows("GRACE"), 30)
    await browser.picture("datasette-query")


@pytest.mark.timeout(180)
async def test_a_web_application_works_below_a_path(tmp_path: Path, browser: Chromium) -> None:
    port = free_port()
    command = (
        f"$PYTHON -c '{SPEECHES}'; exec $PYTHON -m datasette serve speeches.db --host 127.0.0.1 "
        f"--port {port} "
        "--setting base_url /ucloud/local/sessions/web/$UCLOUD_JOB_ID/$UCLOUD_RANK/"
    )
    async with serving_web_jobs(tmp_path) as provider:
        job = python_job(command, applicationType="WEB", web={"port": port})
        await start(provider, job)
        await browser.go(here(provider, await open_session_with_challenge(provider, job, "WEB")))

        async def shows(text: str) -> bool:
            return text in await browser.text()

        await eventually(lambda: shows("2 rows in 1 table"), 90)
        for link in ("speeches", "speeches"):  # the database, then its table
            await browser.do(
                lambda name=link: browser.driver.find_element("link text", name).click()
            )
        await eventually(lambda: shows("2 rows"), 30)
        base = f"{provider.url}/ucloud/local/sessions/web/{job['id']}/0/"
        assert (await browser.do(lambda: browser.driver.current_url)).startswith(base)
        await browser.picture("datasette-below-a-path")


@pytest.mark.timeout(180)
async def test_a_page_uses_a_websocket(provider: Served, browser: Chromium) -> None:
    job = web_job()
    await start(provider, job)
    await browser.go(here(provider, await open_session_with_challenge(provider, job, "WEB")))

    async def shows(text: str) -> bool:
        return text in await browser.text()

    await eventually(lambda: shows('"target":"/?"'), 90)
    script = """
    const [done] = arguments, received = [];
    const socket = new WebSocket(`ws://${location.host}/echo`);
    socket.onopen = () => socket.send("hello");
    socket.onerror = () => done("error");
    socket.onmessage = (event) =>
      received.push(event.data) === 2 && done(received[1] + document.cookie);
    """
    # The session's cookie opens the WebSocket, but no script can read it; the application's own can
    # be read.
    received = await browser.do(browser.driver.execute_async_script, script)
    assert received == "helloflavour=vanilla"
