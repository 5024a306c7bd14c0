"""With encryption Temporal stores no input of a user; the codec server decrypts it for the UI."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from httpx import ASGITransport

from tests.end_to_end.running_stack import Stack
from tests.waiting import wait_until
from ucloud_orchestrator.setup import make_keys
from ucloud_orchestrator.temporal.codec_server import CodecServerSettings, create_codec_server
from ucloud_orchestrator.temporal.encryption import EncryptionCodec, read_keys
from ucloud_orchestrator.temporal.encryption_keys import KEY_FILE_VARIABLE

SECRET = "a-word-that-stands-nowhere-else"


@pytest.fixture(scope="module")
def stack(traced_stack: Stack) -> Stack:
    return traced_stack


@asynccontextmanager
async def codec_server(stack: Stack, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    codec = EncryptionCodec(read_keys(stack.folder / "encryption-keys"))
    app = create_codec_server(CodecServerSettings(**settings), codec)
    async with httpx.AsyncClient(transport=ASGITransport(app), base_url="http://codec") as client:
        yield client


def raw_history(stack: Stack, job_id: str) -> Any:
    return stack.temporal("workflow", "show", "-w", job_id)


async def test_a_job_is_unreadable_without_the_key(stack: Stack) -> None:
    job_id = stack.json("submit", str(stack.appending(SECRET)))["id"]
    job = stack.reached(job_id, "SUCCESS")
    assert job["specification"]["parameters"]["line"]["value"] == SECRET
    assert stack.times_started(SECRET) == 1
    wait_until(lambda: stack.nothing_is_left_of(job_id))

    history = json.dumps(raw_history(stack, job_id))
    for text in (SECRET, base64.b64encode(SECRET.encode()).decode().rstrip("=")[:-1]):
        assert text not in history
    for file in stack.folder.glob("temporal.sqlite*"):
        assert SECRET.encode() not in file.read_bytes()

    payload = raw_history(stack, job_id)["events"][0]["workflowExecutionStartedEventAttributes"][
        "input"
    ]["payloads"]
    async with codec_server(stack) as client:
        decoded = await client.post("/decode", json={"payloads": payload})
        text = base64.b64decode(decoded.json()["payloads"][0]["data"]).decode()
        assert SECRET in text
        encoded = await client.post("/encode", json=decoded.json())
        assert SECRET.encode() not in base64.b64decode(encoded.json()["payloads"][0]["data"])


def test_a_rejection_is_encrypted(stack: Stack) -> None:
    file = stack.job_file("append", "1", **{SECRET: {"type": "text", "value": "x"}})
    rejected = stack.run("submit", str(file))
    assert rejected.returncode == 2
    assert SECRET in rejected.stderr
    for file in stack.folder.glob("temporal.sqlite*"):
        assert SECRET.encode() not in file.read_bytes()


def test_a_client_without_the_key_reports_it(stack: Stack) -> None:
    missing = str(stack.folder / "no-such-file")
    done = stack.run("list", **{KEY_FILE_VARIABLE: missing})
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "The encryption keys cannot be read" in done.stderr


async def test_the_codec_server_requires_a_valid_token(stack: Stack, tmp_path: Path) -> None:
    make_keys(tmp_path, "sign-on")
    make_keys(tmp_path, "other")
    body = {"payloads": []}

    def token(name: str, **changes: Any) -> dict[str, str]:
        claims = {"sub": "operator", "aud": "ucloud", "exp": int(time.time()) + 60} | changes
        key = (tmp_path / f"{name}.private.pem").read_text()
        return {"Authorization": f"Bearer {jwt.encode(claims, key, algorithm='RS256')}"}

    public_key_file = tmp_path / "sign-on.public.pem"
    async with codec_server(stack, public_key_file=public_key_file, audience="ucloud") as client:
        assert (
            await client.post("/decode", json=body, headers=token("sign-on"))
        ).status_code == 200
        assert (await client.post("/decode", json=body)).status_code == 401
        assert (await client.post("/decode", json=body, headers=token("other"))).status_code == 401
        assert (
            await client.post("/decode", json=body, headers=token("sign-on", exp=1))
        ).status_code == 401
        assert (
            await client.post("/decode", json=body, headers=token("sign-on", aud="other"))
        ).status_code == 401


async def test_only_the_origin_of_the_web_ui_is_allowed(stack: Stack) -> None:
    preflight = {"Access-Control-Request-Method": "POST"}
    async with codec_server(stack) as client:
        allowed = await client.options(
            "/decode", headers={"Origin": "http://localhost:8233", **preflight}
        )
        assert allowed.headers["Access-Control-Allow-Origin"] == "http://localhost:8233"
        rejected = await client.options(
            "/decode", headers={"Origin": "http://elsewhere", **preflight}
        )
        assert "Access-Control-Allow-Origin" not in rejected.headers
        assert (await client.post("/decode", content=b"nonsense")).status_code == 400
