"""What was counted of decisions by minute, hour and day, and when each secret was last used."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the tables."""
    for name in ("usage_minutes", "usage_hours", "usage_days"):
        op.create_table(
            name,
            sa.Column("subject", sa.Text, nullable=False),
            sa.Column("start", sa.BigInteger, nullable=False),
            sa.Column("route", sa.Text, nullable=False),
            sa.Column("outcome", sa.Text, nullable=False),
            sa.Column("status", sa.Integer, nullable=False),
            sa.Column("seconds", sa.Double, nullable=False),
            *(sa.Column(f"latency_{number:02}", sa.BigInteger, nullable=False) for number in range(14)),
            sa.PrimaryKeyConstraint("subject", "start", "route", "outcome", "status", name=f"pk_{name}"),
        )
        op.create_index(f"ix_{name}_start", name, ["start"])
    op.create_table(
        "secret_uses",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("last_used_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_secret_uses"),
    )
    op.create_index("ix_secret_uses_key_id_last_used_at", "secret_uses", ["key_id", "last_used_at"])
