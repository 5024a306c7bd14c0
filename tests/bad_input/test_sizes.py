"""Requests that are too large, too deep or have invalid names; rejections must not cost memory."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.builders import shell_job
from tests.provider.provider_process import Reports, Served
from tests.waiting import eventually

pytestmark = pytest.mark.long

LIMIT = 1024 * 1024
DEEP = 100_000
PATHS = [
    "../../etc/passwd",
    "/etc/passwd",
    "..",
    ".",
    "",
    "a/b",
    "a\0b",
    "a\nb",
    " ",
    "a" * 10_000,
    "é",
    "\u202e",
    "-x",
]


@pytest.fixture
async def client(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {served.token()}", "content-type": "application/json"}
    base = f"{served.url}/ucloud/local/jobs"
    async with httpx.AsyncClient(
        base_url=base, headers=headers, verify=False, timeout=30
    ) as opened:
        yield opened


async def chunks(count: int) -> AsyncIterator[bytes]:
    """Yield megabytes; the request has no `Content-Length`."""
    for _ in range(count):
        yield b" " * LIMIT


@pytest.mark.parametrize("has_length", [True, False], ids=["with its length", "in chunks"])
async def test_a_body_above_the_limit_is_rejected_unparsed(
    served: Served, client: httpx.AsyncClient, has_length: bool
) -> None:
    content = b"{" * 10 * LIMIT if has_length else chunks(10)
    answer = await client.post("/terminate", content=content)
    assert answer.status_code == 413, answer.text
    assert answer.json() == {"why": f"The body may have {LIMIT} bytes at most."}
    assert (await client.get("/retrieveProducts")).status_code == 200


async def test_authentication_comes_before_the_body(
    served: Served, client: httpx.AsyncClient
) -> None:
    answer = await client.post(
        "/terminate", content=b"{" * 10 * LIMIT, headers={"Authorization": "Bearer x"}
    )
    assert answer.status_code == 401


BODIES = {
    "nested lists": b"[" * DEEP + b"]" * DEEP,
    "nested in a job": json.dumps({"items": [shell_job("true") | {"x": 0}]})
    .encode()
    .replace(b'"x": 0', b'"x": ' + b"[" * DEEP),
    "a million digits": b'{"items": [{"createdAt": ' + b"9" * 10**6 + b"}]}",
    "not a number": b'{"items": [{"createdAt": NaN}]}',
    "half a character": json.dumps({"items": [shell_job("\ud800")]}).encode(),
    "compressed": gzip.compress(json.dumps({"items": [shell_job("true")]}).encode()),
    "UTF-16": json.dumps({"items": [shell_job("true")]}).encode("utf-16"),
}


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("call", ["", "terminate", "verify"])
async def test_a_body_that_cannot_be_read_is_a_400(
    client: httpx.AsyncClient, call: str, kind: str
) -> None:
    answer = await client.post(f"/{call}", content=BODIES[kind])
    assert answer.status_code == 400, answer.text
    assert answer.json()["why"].isprintable()


@pytest.mark.parametrize("job_id", PATHS, ids=lambda text: ascii(text)[:20])
async def test_every_call_rejects_an_id_that_cannot_name_a_folder(
    served: Served, job_id: str
) -> None:
    job = shell_job("true") | {"id": job_id}
    items: dict[str, Any] = {
        "": job,
        "terminate": job,
        "verify": job,
        "extend": {"job": job, "requestedTime": {"hours": 1}},
        "suspend": {"job": job},
        "unsuspend": {"job": job},
        "interactiveSession": {"job": job, "rank": 0, "sessionType": "LOGS"},
    }
    for call, item in items.items():
        answer = await served.call(call, item)
        assert answer.status_code == 400, (call, answer.text)
        assert answer.json()["why"].endswith("is not the id of a job.")
    assert served.reports.updates.get(job_id) is None


@pytest.mark.parametrize(
    "path",
    [
        "/home/../../etc/passwd",
        "/../etc/passwd",
        "/data/..",
        "/data/a\0b",
        "/data/" + "a/" * 5000,
        "relative",
    ],
)
async def test_a_file_outside_its_drive_is_rejected(served: Served, path: str) -> None:
    job = shell_job("true", resources=[{"type": "file", "path": path}])
    answer = await served.call("", job)
    assert answer.status_code == 400
    assert answer.json()["why"]


async def test_an_extension_beyond_the_maximum_is_rejected(served: Served) -> None:
    job = shell_job("sleep 60", timeAllocation={"hours": 876_000})
    assert (await served.call("", job)).status_code == 200
    answer = await served.call("extend", {"job": job, "requestedTime": {"hours": 1}})
    assert (answer.status_code, answer.json()) == (
        400,
        {"why": "The whole time allocation can be 876000 hours at most."},
    )
    assert (await served.call("terminate", job)).status_code == 200
    await served.end_of(job)


async def test_unknown_paths_and_methods_are_rejected_with_a_reason(
    served: Served, client: httpx.AsyncClient
) -> None:
    for method, path, status in (
        ("GET", "/terminate", 405),
        ("POST", "/nothing", 404),
        ("PUT", "/" + "a" * 5000, 404),
    ):
        answer = await client.request(method, path)
        assert (answer.status_code, bool(answer.json()["why"])) == (status, True)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[tuple[Served, psutil.Process]]:
    """Start a provider in a process of its own, whose memory can be measured."""
    served = Served(tmp_path, Reports())
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("TEMPORAL_")
    } | {
        "UCLOUD_PROVIDER_DATA_DIR": str(served.settings.data_dir),
        "UCLOUD_PROVIDER_PUBLIC_KEY_FILE": str(served.settings.public_key_file),
        "UCLOUD_PROVIDER_PORT": "0",
        "UCLOUD_PROVIDER_MAXIMUM_REQUEST_BYTES": str(LIMIT),
        "UCLOUD_PROVIDER_NETWORK": "host",
        "TEMPORAL_ADDRESS": "127.0.0.1:9",
    }
    log = (tmp_path / "log").open("wb")
    command = [sys.executable, "-m", "ucloud_orchestrator.provider", "--json"]
    with (
        log,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log) as process,
    ):
        try:
            assert process.stdout is not None
            served.url = json.loads(process.stdout.readline())["url"]
            yield served, psutil.Process(process.pid)
        finally:
            process.kill()
    assert "Traceback" not in (tmp_path / "log").read_text()


MEMORY = 24 * 1024 * 1024
"""Bytes by which the process may grow; a thousand kept bodies would take fifty times as much."""


async def test_two_thousand_rejections_use_no_memory(
    alone: tuple[Served, psutil.Process],
) -> None:
    served, process = alone
    headers = {
        "Authorization": f"Bearer {served.token(exp=2**33)}",
        "content-type": "application/json",
    }
    large = b'{"items": [' + b"[" * (LIMIT // 10)
    job = shell_job("true") | {"id": "../x"}
    wrong = [{"items": [job]}, {"items": [1] * 300}, {"items": [{"id": "a" * 100_000}]}]
    requests: list[tuple[str, bytes, dict[str, str]]] = [
        ("terminate", large, headers),
        ("terminate", b" " * (LIMIT + 1), headers),
        *(("", json.dumps(body).encode(), headers) for body in wrong),
        ("verify", b"[" * 50_000, headers),
        ("nothing" + "a" * 1000, b"{}", headers),
        ("terminate", b"{}", {"Authorization": "Bearer " + "W" * 20_000}),
    ]
    async with httpx.AsyncClient(
        base_url=f"{served.url}/ucloud/local/jobs", verify=False, timeout=60
    ) as client:

        async def send_all(rounds: int) -> None:
            for _ in range(rounds):
                for path, content, sent in requests:
                    answer = await client.post(f"/{path}", content=content, headers=sent)
                    assert 400 <= answer.status_code < 500, answer.text

        await send_all(25)  # fills caches
        before = process.memory_info().rss
        await send_all(2000 // len(requests))
        await eventually(lambda: process.memory_info().rss - before < MEMORY)
        print(f"2000 rejections: {before} bytes before, {process.memory_info().rss} after")
