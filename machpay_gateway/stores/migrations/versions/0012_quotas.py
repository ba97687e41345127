"""The units of quotas: what their counts start from where no limiter holds them."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Create the table of units by subject and day."""
    op.create_table(
        "quota_units",
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("day", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("units", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("subject", "day", name="pk_quota_units"),
    )
    op.create_index("ix_quota_units_day", "quota_units", ["day"])
