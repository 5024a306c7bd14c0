"""Create the key pair of a provider: the worker signs its calls, the provider verifies them."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from ucloud_orchestrator.setup.steps import Outcome, SetupError


def make_keys(folder: Path, provider: str) -> Outcome:
    """Create `<provider>.private.pem` and `<provider>.public.pem` (RSA, 2048 bits). Idempotent.

    An existing private key is kept, and its public key is written if missing. Raises `SetupError`.
    """
    private_file, public_file = (
        folder / f"{provider}.private.pem",
        folder / f"{provider}.public.pem",
    )
    if private_file.exists() and public_file.exists():
        return "there"
    if private_file.exists():
        key = _read_private_key(private_file)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        private_bytes = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        with os.fdopen(
            os.open(private_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
        ) as file:
            file.write(private_bytes)
    public_file.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return "made"


def _read_private_key(file: Path) -> rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise SetupError(
            f"The file {file} holds no private key (PEM): mend it, or move it away."
        ) from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise SetupError(f"The key in {file} is not RSA, which providers ask for: move it away.")
    return key
