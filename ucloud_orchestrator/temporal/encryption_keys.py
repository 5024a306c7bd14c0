"""Where the encryption keys are; apart from the encryption, whose library a client without it does
not need.
"""

from __future__ import annotations

import os
from pathlib import Path

KEY_FILE_VARIABLE = "UCLOUD_ENCRYPTION_KEY_FILE"
"""The environment variable that names the file of keys; without it nothing is encrypted."""


class EncryptionKeyError(ValueError):
    """A key is missing or wrong; the text says which, and never the key itself."""


def key_file() -> Path | None:
    """The file of keys that the environment names."""
    named = os.environ.get(KEY_FILE_VARIABLE)
    return Path(named) if named else None
