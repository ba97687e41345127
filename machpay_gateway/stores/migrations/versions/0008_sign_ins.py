"""What sign-in needs: idle sessions, confirmed passwords, known browsers, and address blocks that are familiar."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the columns, empty: a sign-in without them was last seen and confirmed when it was made."""
    op.add_column("sign_ins", sa.Column("seen_at", sa.Double))
    op.add_column("sign_ins", sa.Column("confirmed_at", sa.Double))
    op.add_column("users", sa.Column("devices_from", sa.Double))
    op.create_table(
        "familiar_blocks",
        sa.Column(
            "user_id", sa.Text, sa.ForeignKey("users.id", name="fk_familiar_blocks_user_id_users"), nullable=False
        ),
        sa.Column("block", sa.Text, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "block", name="pk_familiar_blocks"),
    )
