"""Whom within its account a key is for."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the column; the keys that are there have no owner."""
    op.add_column("keys", sa.Column("owner", sa.Text))
