"""Encryption of payloads, rotation of keys, and errors for wrong keys."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from temporalio.api.common.v1 import Payload

from ucloud_orchestrator.temporal.encryption import EncryptionCodec, read_keys
from ucloud_orchestrator.temporal.encryption_keys import EncryptionKeyError

SECRET = Payload(metadata={"encoding": b"json/plain"}, data=b'"hunter2"')


def line(name: str) -> str:
    return f"{name} {base64.b64encode(os.urandom(32)).decode()}"


def codec(folder: Path, *lines: str) -> EncryptionCodec:
    file = folder / "keys"
    file.write_text("# keys\n\n" + "\n".join(lines) + "\n")
    return EncryptionCodec(read_keys(file))


async def test_payloads_decrypt_only_with_the_key(tmp_path: Path) -> None:
    own = codec(tmp_path, line("a"))
    (first,), (second,) = await own.encode([SECRET]), await own.encode([SECRET])
    assert first.data != second.data
    assert b"hunter2" not in first.SerializeToString()
    assert b"json/plain" not in first.SerializeToString()
    assert await own.decode([first, second]) == [SECRET, SECRET]


async def test_unencrypted_payloads_decode_unchanged(tmp_path: Path) -> None:
    assert await codec(tmp_path, line("a")).decode([SECRET]) == [SECRET]


async def test_a_new_first_line_rotates_the_key(tmp_path: Path) -> None:
    old, new = line("old"), line("new")
    (before,) = await codec(tmp_path, old).encode([SECRET])
    both = codec(tmp_path, new, old)
    assert await both.decode([before]) == [SECRET]
    (after,) = await both.encode([SECRET])
    assert await codec(tmp_path, new).decode([after]) == [SECRET]
    with pytest.raises(EncryptionKeyError, match="the key 'old', which is not in the file"):
        await codec(tmp_path, new).decode([before])


async def test_a_wrong_key_of_the_same_name_is_an_error(tmp_path: Path) -> None:
    (payload,) = await codec(tmp_path, line("a")).encode([SECRET])
    with pytest.raises(EncryptionKeyError, match="not the one with which"):
        await codec(tmp_path, line("a")).decode([payload])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "a\n",
        "a not-base64!\n",
        "a " + base64.b64encode(b"short").decode() + "\n",
    ],
)
def test_a_file_without_a_valid_key_is_rejected(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(EncryptionKeyError):
        read_keys(tmp_path / "keys")


def test_an_error_about_duplicate_keys_has_no_key(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{line('a')}\n{line('a')}\n")
    with pytest.raises(EncryptionKeyError) as raised:
        read_keys(tmp_path / "keys")
    assert (
        str(raised.value)
        == f"{tmp_path / 'keys'}:2: a line is a name of its own and 32 bytes in base64."
    )
