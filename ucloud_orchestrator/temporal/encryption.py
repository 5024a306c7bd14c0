"""The payload codec: AES-256-GCM with keys from a file.

Each line of the file is a key, `<name> <32 bytes in base64>`. The first key encrypts, all keys
decrypt. To rotate keys, add a new first line. Remove the old one after the retention of the
workflows that it encrypted. `echo "2026-11 $(openssl rand -base64 32)"` creates a key.

Search attributes, ids and types are not encrypted: Temporal needs them to find workflows.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

from ucloud_orchestrator.temporal.encryption_keys import EncryptionKeyError

ENCODING = b"binary/encrypted"
KEY_NAME = "encryption-key-id"
KEY_BYTES = 32
NONCE_BYTES = 12


class EncryptionCodec(PayloadCodec):
    """Encrypts payloads with their metadata. Unencrypted ones, as of the UI, decode unchanged."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        self._keys = {name: AESGCM(key) for name, key in keys.items()}
        self._current = next(iter(keys))

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [self._encrypt(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decrypt the payloads. Raises `EncryptionKeyError` for a missing or wrong key."""
        return [self._decrypt(payload) for payload in payloads]

    def _encrypt(self, payload: Payload) -> Payload:
        nonce = os.urandom(NONCE_BYTES)
        name = self._current.encode()
        data = nonce + self._keys[self._current].encrypt(nonce, payload.SerializeToString(), name)
        return Payload(metadata={"encoding": ENCODING, KEY_NAME: name}, data=data)

    def _decrypt(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != ENCODING:
            return payload
        name = payload.metadata.get(KEY_NAME, b"").decode(errors="replace")
        key = self._keys.get(name)
        if key is None:
            raise EncryptionKeyError(
                f"A message is encrypted with the key {name!r}, which is not in the file of keys."
            )
        try:
            nonce, data = payload.data[:NONCE_BYTES], payload.data[NONCE_BYTES:]
            return Payload.FromString(key.decrypt(nonce, data, name.encode()))
        except InvalidTag as error:
            raise EncryptionKeyError(
                f"The key {name!r} is not the one with which a message was encrypted."
            ) from error


def read_keys(file: Path) -> dict[str, bytes]:
    """Read the keys of a file by name, the current one first.

    Raises `EncryptionKeyError`, whose text never has a key.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EncryptionKeyError(f"The encryption keys cannot be read: {error}") from error
    keys: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, text = line.strip().partition(" ")
        try:
            key = base64.b64decode(text.strip(), validate=True)
        except binascii.Error:
            key = b""
        if len(key) != KEY_BYTES or name in keys:
            raise EncryptionKeyError(
                f"{file}:{number}: a line is a name of its own and {KEY_BYTES} bytes in base64."
            )
        keys[name] = key
    if not keys:
        raise EncryptionKeyError(f"There is no encryption key in {file}.")
    return keys
