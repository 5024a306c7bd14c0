"""Encryption of what jobs carry through Temporal: AES-256-GCM with keys from a file (Temporal:
"payload codec").

The file has a key on each line, `<name> <32 bytes in base64>`. The first one encrypts; all of them
decrypt, so a key is changed by putting a new one above it, and taken away when no workflow that it
encrypted is kept any more. Make one with `echo "2026-11 $(openssl rand -base64 32)"`.

Search attributes, ids and types stay readable: Temporal needs them to find workflows.
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
    """Encrypts each payload whole, its metadata too.

    What comes in plain, such as a signal from the UI, stays plain.
    """

    def __init__(self, keys: dict[str, bytes]) -> None:
        self._keys = {name: AESGCM(key) for name, key in keys.items()}
        self._current = next(iter(keys))

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """The payloads, encrypted with the current key."""
        return [self._encrypted(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """The payloads as they were.

        Raises `EncryptionKeyError` if a key is not there, or is not the right one.
        """
        return [self._decrypted(payload) for payload in payloads]

    def _encrypted(self, payload: Payload) -> Payload:
        nonce = os.urandom(NONCE_BYTES)
        name = self._current.encode()
        data = nonce + self._keys[self._current].encrypt(nonce, payload.SerializeToString(), name)
        return Payload(metadata={"encoding": ENCODING, KEY_NAME: name}, data=data)

    def _decrypted(self, payload: Payload) -> Payload:
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
    """The keys of a file by their names, the current one first.

    Raises `EncryptionKeyError`; it never tells a key.
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
