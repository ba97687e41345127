"""Secrets as rows: keys and OAuth clients have the same columns for them."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping

from machpay_gateway.core.keys.key import SecretRecord


def secret_values(secrets: Sequence[SecretRecord], **owner: str) -> list[dict[str, Any]]:
    """Return the rows of *secrets*, the current one first; *owner* is the column that references their owner."""
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


def secret_from(row: RowMapping) -> SecretRecord:
    """Return the secret in *row*; columns whose names its owner has too are prefixed with `secret_`."""
    return SecretRecord(
        digest=bytes(row["digest"]),
        masked=row["masked"],
        created_at=row["secret_created_at"],
        expires_at=row["secret_expires_at"],
        last_used_at=row.get("secret_last_used_at"),
    )
