"""Which clients registered themselves: what they may do is less than what an operator's clients may."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Mark the clients that registered themselves; of those that are there, the audit log tells which did."""
    column = sa.Column("is_self_registered", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("oauth_clients", column)
    op.create_index(
        "ix_oauth_clients_is_self_registered_created_at", "oauth_clients", ["is_self_registered", "created_at"]
    )
    # A client that no operator, key or user created did it itself. Unmarked, it could go on to call for the account.
    op.execute(
        "UPDATE oauth_clients SET is_self_registered = true WHERE id IN "
        "(SELECT object_id FROM audit_log WHERE action = 'client.create' AND actor_kind = 'client')"
    )
    # Nor may what it got for itself before go on: no user allowed that.
    op.execute(
        "UPDATE oauth_grants SET revoked_at = changed_at WHERE user_id IS NULL AND revoked_at IS NULL "
        "AND client_id IN (SELECT id FROM oauth_clients WHERE is_self_registered)"
    )
