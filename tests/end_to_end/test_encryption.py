"""With encryption on, Temporal keeps nothing that a user has given; the codec server shows it to
the UI.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from httpx import ASGITransport

from tests.end_to_end.running_stack import Stack, eventually
from ucloud_orchestrator.setup import make_keys
from ucloud_orchestrator.temporal.codec_server import CodecServerSettings, create_codec_server
from ucloud_orchestrator.temporal.encryption import EncryptionCodec, read_keys
from ucloud_orchestrator.temporal.encryption_keys import KEY_FILE_VARIABLE

SECRET = "a-word-that-stands-nowhere-else"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("encryption")
    (folder / "encryption-keys").write_text(f"first {base64.b64encode(os.urandom(32)).decode()}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_FILE_VARIABLE, str(folder / "encryption-keys"))
        running = Stack(folder)
        yield running
        running.stop()


@asynccontextmanager
async def codec_server(stack: Stack, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    codec = EncryptionCodec(read_keys(stack.folder / "encryption-keys"))
    app = create_codec_server(CodecServerSettings(**settings), codec)
    async with httpx.AsyncClient(transport=ASGITransport(app), base_url="http://codec") as client:
        yield client


def raw_history(stack: Stack, job_id: str) -> Any:
    return stack.temporal("workflow", "show", "-w", job_id)


async def test_nothing_of_a_job_can_be_read_without_the_key(stack: Stack) -> None:
    job_id = stack.json("submit", str(stack.appending(SECRET)))["id"]
    job = stack.reached(job_id, "SUCCESS")
    assert job["specification"]["parameters"]["line"]["value"] == SECRET
    assert stack.times_started(SECRET) == 1
    eventually(lambda: stack.nothing_is_left_of(job_id))

    history = json.dumps(raw_history(stack, job_id))
    for encoded in (SECRET, base64.b64encode(SECRET.encode()).decode().rstrip("=")[:-1]):
        assert encoded not in history
    for file in stack.folder.glob("temporal.sqlite*"):
        assert SECRET.encode() not in file.read_bytes()

    payload = raw_history(stack, job_id)["events"][0]["workflowExecutionStartedEventAttributes"][
        "input"
    ]["payloads"]
    async with codec_server(stack) as client:
        answer = await client.post("/decode", json={"payloads": payload})
        shown = base64.b64decode(answer.json()["payloads"][0]["data"]).decode()
        assert SECRET in shown
        back = await client.post("/encode", json=answer.json())
        assert SECRET.encode() not in base64.b64decode(back.json()["payloads"][0]["data"])


def test_a_refusal_is_encrypted_too(stack: Stack) -> None:
    file = stack.job_file("append", "1", **{SECRET: {"type": "text", "value": "x"}})
    refused = stack.run("submit", str(file))
    assert refused.returncode == 2
    assert SECRET in refused.stderr
    for file in stack.folder.glob("temporal.sqlite*"):
        assert SECRET.encode() not in file.read_bytes()


def test_a_client_without_the_key_is_told_so(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(stack.folder / "no-such-file"))
    done = stack.run("list")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "The encryption keys cannot be read" in done.stderr


async def test_the_codec_server_asks_for_the_token_of_the_sign_on(
    stack: Stack, tmp_path: Path
) -> None:
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


async def test_only_the_web_ui_may_ask_from_a_browser(stack: Stack) -> None:
    asks = {"Access-Control-Request-Method": "POST"}
    async with codec_server(stack) as client:
        ours = await client.options("/decode", headers={"Origin": "http://localhost:8233", **asks})
        assert ours.headers["Access-Control-Allow-Origin"] == "http://localhost:8233"
        others = await client.options("/decode", headers={"Origin": "http://elsewhere", **asks})
        assert "Access-Control-Allow-Origin" not in others.headers
        assert (await client.post("/decode", content=b"nonsense")).status_code == 400
