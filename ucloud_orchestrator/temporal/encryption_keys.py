"""The setting of the key file. Unlike `encryption` it does not import `cryptography`."""

from __future__ import annotations

import os
from pathlib import Path

KEY_FILE_VARIABLE = "UCLOUD_ENCRYPTION_KEY_FILE"
"""The environment variable with the path of the key file; unset: no encryption."""


class EncryptionKeyError(ValueError):
    """A key is missing or wrong. The text names it, and never has its value."""


def key_file() -> Path | None:
    """Return the path of the key file; None: no encryption."""
    path = os.environ.get(KEY_FILE_VARIABLE)
    return Path(path) if path else None
