"""The codec server decrypts payloads for the Temporal Web UI and the `temporal` command line.

Temporal calls this remote data encoding. `python -m ucloud_orchestrator.temporal.codec_server`
serves on the loopback interface. A client of it can read every job. With
`UCLOUD_CODEC_PUBLIC_KEY_FILE` each request needs a token of the organisation's own sign-on.
"""

from __future__ import annotations

from ucloud_orchestrator.process.extras import require_extra

if __name__ == "__main__":
    require_extra("codec-server")

import contextlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import jwt
import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from google.protobuf import json_format
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from pydantic import Field
from pydantic_settings import SettingsConfigDict
from temporalio.api.common.v1 import Payload, Payloads

from ucloud_orchestrator.process.settings import ProcessSettings, SettingsError
from ucloud_orchestrator.process.shutdown import exit_process
from ucloud_orchestrator.temporal.encryption import EncryptionCodec, read_keys
from ucloud_orchestrator.temporal.encryption_keys import (
    KEY_FILE_VARIABLE,
    EncryptionKeyError,
    key_file,
)

log = logging.getLogger("codec_server")

MAXIMUM_BYTES = 8 * 1024 * 1024
"""The size limit of a request. A page of the UI's history is smaller."""
ALGORITHMS = ["RS256", "ES256"]
STOP_TIMEOUT = 5
"""Seconds for requests under way at shutdown."""


class CodecServerSettings(ProcessSettings):
    """Environment variables `UCLOUD_CODEC_*`, or one TOML file named by `UCLOUD_CODEC_CONFIG`.

    The keys are those of `UCLOUD_ENCRYPTION_KEY_FILE`.
    """

    model_config = SettingsConfigDict(env_prefix="UCLOUD_CODEC_", extra="ignore")
    file_variable: ClassVar[str] = "UCLOUD_CODEC_CONFIG"

    host: str = "127.0.0.1"
    port: int = Field(default=8888, ge=0, le=65535)
    origins: list[str] = Field(default=["http://localhost:8233", "http://127.0.0.1:8233"])
    """The allowed CORS origins: the addresses of the Web UI."""
    public_key_file: Path | None = None
    """The public key (PEM) for the tokens that the Web UI sends; None: no authentication."""
    audience: str | None = None
    """The required audience of a token."""


def create_codec_server(settings: CodecServerSettings, codec: EncryptionCodec) -> FastAPI:
    """Create the application with the routes `/encode` and `/decode`. Raises `OSError`."""
    public_key = _read_public_key(settings.public_key_file) if settings.public_key_file else None

    def authenticate(authorization: Annotated[str | None, Header()] = None) -> None:
        if public_key is not None:
            _verify_token(authorization or "", public_key, settings.audience)

    app = FastAPI(
        title="UCloud codec server",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(authenticate)],
    )
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.origins,
        allow_methods=["POST"],
        allow_headers=["content-type", "x-namespace", "authorization"],
        allow_credentials=True,
    )

    @app.post("/encode")
    async def encode(request: Request) -> Response:
        payloads = await _read_payloads(request)
        return _response(await codec.encode(payloads))

    @app.post("/decode")
    async def decode(request: Request) -> Response:
        payloads = await _read_payloads(request)
        try:
            return _response(await codec.decode(payloads))
        except EncryptionKeyError as error:
            raise HTTPException(400, str(error)) from error

    return app


def _verify_token(authorization: str, public_key: str, audience: str | None) -> None:
    """Verify the bearer token of a request. Raises `HTTPException` (401)."""
    scheme, _, token = authorization.partition(" ")
    try:
        jwt.decode(
            token if scheme.lower() == "bearer" else "",
            public_key,
            algorithms=ALGORITHMS,
            audience=audience,
            options={"require": ["exp"], "verify_aud": audience is not None},
        )
    except (jwt.InvalidTokenError, RecursionError, OverflowError) as error:
        raise HTTPException(401, "The token of your sign-on is missing or not valid.") from error


def _read_public_key(file: Path) -> str:
    """Read a public key (PEM). Raises `OSError`, also if the file is not such a key."""
    text = file.read_text()
    for algorithm in (RSAAlgorithm(RSAAlgorithm.SHA256), ECAlgorithm(ECAlgorithm.SHA256)):
        with contextlib.suppress(jwt.InvalidKeyError, ValueError):
            algorithm.prepare_key(text)
            return text
    raise OSError(f"{file} holds no public key (PEM) that verifies {' or '.join(ALGORITHMS)}.")


async def _read_payloads(request: Request) -> Sequence[Payload]:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAXIMUM_BYTES:
            raise HTTPException(413, f"A request may have {MAXIMUM_BYTES} bytes at most.")
    try:
        return json_format.Parse(body, Payloads()).payloads
    except (json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise HTTPException(400, "The body is not Temporal's JSON of payloads.") from error


def _response(payloads: Sequence[Payload]) -> Response:
    body = json_format.MessageToJson(Payloads(payloads=payloads))
    return Response(body, media_type="application/json")


def main() -> int:
    logging.basicConfig(
        level="INFO", stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    try:
        settings = CodecServerSettings.read()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    file = key_file()
    if file is None:
        log.error("There is nothing to decrypt with: set %s.", KEY_FILE_VARIABLE)
        return 2
    try:
        app = create_codec_server(settings, EncryptionCodec(read_keys(file)))
        uvicorn.run(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            timeout_graceful_shutdown=STOP_TIMEOUT,
        )
    except (EncryptionKeyError, OSError) as error:
        log.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    exit_process(main())
