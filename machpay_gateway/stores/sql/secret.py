"""The secret key of a SQLite database, in a file beside it that only its owner may read."""

import os
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from machpay_gateway.core.errors import ConfigurationError

_BYTES = 32


def secret_path(database: Path) -> Path:
    """Return the file with the secret key of the SQLite file *database*."""
    return Path(f"{database}.secret")


def secret_beside(database: Path) -> bytes:
    """Return the secret key of the SQLite file *database*; create it if there is none. Raises ConfigurationError."""
    path = secret_path(database)
    try:
        if not path.exists():
            _create(path)
        secret = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{path} cannot be read or made ({exc}): set MACHPAY_SECRET_KEY instead") from exc
    if len(secret) < _BYTES:
        raise ConfigurationError(
            f"{path} holds no secret key: put back the one that was there, or set MACHPAY_SECRET_KEY"
        )
    return secret.encode()


def _create(path: Path) -> None:
    # Written completely and then linked: several processes that start at once all read the same key.
    draft = path.with_name(f"{path.name}.{os.getpid()}.{token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(token_hex(_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
