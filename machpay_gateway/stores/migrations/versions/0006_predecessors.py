"""Refresh tokens that tell what they came after, so that the one before need not be changed."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Turn the chains round: what led to the next token leads to its row from the one before now."""
    op.execute(
        "CREATE TABLE refresh_tokens_turned AS "
        "SELECT tokens.digest, tokens.family_id, tokens.created_at, tokens.expires_at, "
        "before.digest AS predecessor, before.seed AS seed "
        "FROM refresh_tokens AS tokens "
        "LEFT JOIN refresh_tokens AS before ON before.next_digest = tokens.digest"
    )
    op.drop_table("refresh_tokens")
    op.create_table(
        "refresh_tokens",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("family_id", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("predecessor", sa.LargeBinary),
        sa.Column("seed", sa.LargeBinary),
        sa.ForeignKeyConstraint(
            ["family_id"], ["token_families.id"], name="fk_refresh_tokens_family_id_token_families"
        ),
        sa.PrimaryKeyConstraint("digest", name="pk_refresh_tokens"),
        sa.UniqueConstraint("predecessor", name="uq_refresh_tokens_predecessor"),
    )
    op.create_index("ix_refresh_tokens_family_id", "refresh_tokens", ["family_id"])
    op.execute("INSERT INTO refresh_tokens SELECT * FROM refresh_tokens_turned")
    op.drop_table("refresh_tokens_turned")
