"""Secrets as rows: those of keys and of clients are kept alike."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping

from machpay_gateway.core.keys.key import SecretRecord


def secret_values(secrets: Sequence[SecretRecord], **owner: str) -> list[dict[str, Any]]:
    """Return the rows of *secrets*, the current one first; *owner* is the column that says whose they are."""
    return [
        {
            "digest": secret.digest,
            **owner,
            "position": position,
            "masked": secret.masked,
            "created_at": secret.created_at,
            "expires_at": secret.expires_at,
        }
        for position, secret in enumerate(secrets)
    ]


def secret_in(row: RowMapping) -> SecretRecord:
    """Return the secret in a *row* that has its columns, those that its owner has too with `secret_` in front."""
    return SecretRecord(
        digest=bytes(row["digest"]),
        masked=row["masked"],
        created_at=row["secret_created_at"],
        expires_at=row["secret_expires_at"],
        last_used_at=row.get("secret_last_used_at"),
    )
