"""Read jobs in the Temporal Web UI with a real browser; `make screenshots` saves the pages."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from client import Actor, JobClient, JobRejected
from tests.builders import file, integer, specification
from tests.end_to_end.chromium import Chromium, chromium
from tests.end_to_end.running_stack import ROOT, Stack
from tests.waiting import eventually
from ucloud_orchestrator.models import JobSpecification, JobState

pytestmark = pytest.mark.long

REASON = "The input was of the wrong year."
COLUMNS = ("Status", "JobState", "JobName", "JobOwner", "JobApplication", "Start", "End")
"""The columns that `docs/operators/README.md` recommends; the browser stores them."""


@dataclass(frozen=True)
class Jobs:
    """The ids of one job of each end, and their stack."""

    stack: Stack
    counted: str
    failed: str
    cancelled: str
    running: str
    rejected: str


def asked_for(name: str, application: str, **parameters: Any) -> JobSpecification:
    return specification(application, "1.0", name=name, parameters=parameters)


def asleep(name: str, seconds: int) -> JobSpecification:
    return asked_for(name, "sleep", seconds=integer(seconds))


@pytest.fixture(scope="module")
async def jobs(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Jobs]:
    stack = await asyncio.to_thread(Stack, tmp_path_factory.mktemp("web-ui"))
    client = await JobClient.connect(Actor(username="alice"), stack.ready["temporal"])
    speeches, nothing = (file(f"/examples/{name}.txt") for name in ("speeches", "no-such-file"))
    counted = await client.create(asked_for("Count the speeches", "word-count", text=speeches))
    await client.wait(counted.id)

    async def runs(specification: JobSpecification) -> str:
        job = await client.create(specification)

        async def is_running() -> bool:
            return (await client.retrieve(job.id)).status.state is JobState.RUNNING

        await eventually(is_running, 40)
        return job.id

    failed = await runs(asleep("Fit the model", 301))
    for pid in stack.processes_of(failed):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert (await client.wait(failed)).status.state is JobState.FAILURE
    cancelled = await runs(asleep("Sweep of 2025", 302))
    await client.cancel(cancelled, REASON)
    await client.wait(cancelled)
    rejected = client.new_job_id()
    with pytest.raises(JobRejected):
        await client.create(asked_for("Count another text", "word-count", text=nothing), rejected)
    live = await runs(asleep("Sweep of 2026", 303))
    yield Jobs(stack, counted.id, failed, cancelled, live, rejected)
    await asyncio.to_thread(stack.stop)


@pytest.fixture(scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chromium]:
    async with chromium(tmp_path_factory.mktemp("profile") / "chromium") as opened:
        yield opened


def everything(driver: Chrome) -> str:
    """Return the text of the page and its frames: the Web UI renders Markdown in frames."""
    texts = []
    try:
        driver.switch_to.default_content()
        texts.append(driver.find_element(By.TAG_NAME, "body").text)
        for frame in driver.find_elements(By.TAG_NAME, "iframe"):
            driver.switch_to.frame(frame)
            texts.append(driver.find_element(By.TAG_NAME, "body").text)
            driver.switch_to.default_content()
    except WebDriverException:  # the page has just been drawn again
        with suppress(WebDriverException):
            driver.switch_to.default_content()
    return "\n".join(texts)


async def shows(browser: Chromium, address: str, *words: str, height: int = 1000) -> str:
    """Open a page, wait until it shows all the words, and return its text."""
    await browser.do(browser.driver.set_window_size, 1400, height)
    await browser.go(address)
    seen = ""

    async def is_complete() -> bool:
        nonlocal seen
        seen = await browser.do(everything, browser.driver)
        return all(word in seen for word in words)

    try:
        await eventually(is_complete, 30)
    except AssertionError:
        raise AssertionError(
            f"{[word for word in words if word not in seen]} are missing in:\n{seen}"
        ) from None
    return seen


async def metadata(browser: Chromium, jobs: Jobs, job_id: str, *words: str) -> str:
    """Return the address of a job's metadata page."""
    run = jobs.stack.temporal("workflow", "describe", "--workflow-id", job_id)[
        "workflowExecutionInfo"
    ]["execution"]["runId"]
    return await shows(
        browser,
        f"{jobs.stack.ready['ui']}/namespaces/default/workflows/{job_id}/{run}/user-metadata",
        *words,
    )


def test_the_page_shows_every_screenshot() -> None:
    named = re.findall(
        r"\(\.\./images/([a-z-]+\.png)\)", (ROOT / "docs" / "operators" / "README.md").read_text()
    )
    assert sorted(named) == sorted(
        file.name for file in (ROOT / "docs" / "images").glob("web-ui-*.png")
    )


@pytest.mark.timeout(180)
async def test_the_list_shows_jobs_and_their_ends(jobs: Jobs, browser: Chromium) -> None:
    ui = jobs.stack.ready["ui"]
    await browser.go(ui)
    columns = json.dumps({"default": [{"label": label} for label in COLUMNS]})
    store = "localStorage.setItem('namespace-workflow-table-columns', arguments[0])"
    await browser.do(browser.driver.execute_script, store, columns)
    address = f"{ui}/namespaces/default/workflows?query=WorkflowType%3D%22Job%22"
    text = await shows(browser, address, "Sweep of 2026", "Count the speeches", height=760)
    rows = " ".join(text.split())
    for row in (
        "RUNNING RUNNING Sweep of 2026 alice sleep@1.0",
        "FAILED Count another text alice word-count@1.0",
        "CANCELED SUCCESS Sweep of 2025 alice sleep@1.0",
        "COMPLETED FAILURE Fit the model alice sleep@1.0",
        "COMPLETED SUCCESS Count the speeches alice word-count@1.0",
    ):
        assert row in rows
    await browser.picture("web-ui-list")


@pytest.mark.timeout(180)
async def test_a_running_job_shows_its_waiting_reason(jobs: Jobs, browser: Chromium) -> None:
    waits = "its end, or its deadline"
    await metadata(
        browser,
        jobs,
        jobs.running,
        "sleep@1.0 (Sweep of 2026) for alice",
        "RUNNING: All replicas run.",
        waits,
    )
    await browser.picture("web-ui-running")


@pytest.mark.timeout(180)
async def test_a_cancelled_job_shows_the_reason(jobs: Jobs, browser: Chromium) -> None:
    words = (
        "SUCCESS: The job was cancelled, and has stopped.",
        f"Your job is being cancelled: {REASON}",
        "Cancelled at",
    )
    await metadata(browser, jobs, jobs.cancelled, "CANCELED", *words)
    await browser.picture("web-ui-cancelled")


@pytest.mark.timeout(180)
async def test_a_failed_job_shows_whose_fault_it_is(jobs: Jobs, browser: Chromium) -> None:
    word = (
        "The replica of rank 0 vanished without an exit code: the machine or its processes "
        "were stopped."
    )
    await metadata(
        browser,
        jobs,
        jobs.failed,
        "FAILURE: The scheduler, the hardware or the provider failed.",
        word,
    )
    await browser.picture("web-ui-failed")
    address = f"{jobs.stack.ready['ui']}/namespaces/default/workflows/{jobs.failed}"
    await shows(
        browser,
        address,
        '"state": "FAILURE"',
        "Submit to local",
        "The time allocation runs out",
        height=1270,
    )
    await browser.picture("web-ui-timeline")


@pytest.mark.timeout(180)
async def test_a_rejected_job_shows_the_reason(jobs: Jobs, browser: Chromium) -> None:
    words = (
        "The provider local refused: There is no file /examples/no-such-file.txt.",
        "The job holds nothing",
    )
    await metadata(browser, jobs, jobs.rejected, "FAILED", "Rejected (PROVIDER_REJECTED)", *words)
    await browser.picture("web-ui-refused")
