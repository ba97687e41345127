"""A scanner that reports leaked secrets, and the document that it publishes its key in."""

from pathlib import Path

import orjson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

KEY = ec.generate_private_key(ec.SECP256R1())


def scanners_keys(folder: Path) -> Path:
    """Write the document into *folder* and return its path."""
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    public = KEY.public_key().public_bytes(encoding, form).decode()
    path = folder / "scanner.json"
    path.write_bytes(orjson.dumps({"public_keys": [{"key_identifier": "k1", "key": public}]}))
    return path
