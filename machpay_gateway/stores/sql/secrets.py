"""Conversion of secrets to and from rows. Keys and OAuth clients store them in the same columns."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping

from machpay_gateway.core.keys.key import SecretRecord


def secret_rows(secrets: Sequence[SecretRecord], **owner: str) -> list[dict[str, Any]]:
    """Return the rows of *secrets* to insert, the current secret first.

    *owner* is the foreign key column with the id of the key or OAuth client.
    """
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


def secret_from_row(row: RowMapping) -> SecretRecord:
    """Return the secret in *row*.

    The prefix `secret_` distinguishes columns that the key or OAuth client has too.
    """
    return SecretRecord(
        digest=bytes(row["digest"]),
        masked=row["masked"],
        created_at=row["secret_created_at"],
        expires_at=row["secret_expires_at"],
        last_used_at=row.get("secret_last_used_at"),
    )
