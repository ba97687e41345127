"""Tiers of single keys."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the column; the keys that are there have the tier of their account."""
    op.add_column("keys", sa.Column("own_tier", sa.Text))
