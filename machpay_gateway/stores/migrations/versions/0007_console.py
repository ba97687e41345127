"""What the Console asks: who may change things, what happened to one object, and what an account's keys add up to."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_LATENCIES = [f"latency_{number:02}" for number in range(14)]


def upgrade() -> None:
    """Let every user look and none change anything; sum up for each account what is stored of its keys and apps."""
    op.add_column("users", sa.Column("role", sa.Text, nullable=False, server_default="viewer"))
    op.create_index("ix_audit_log_object_id_sequence", "audit_log", ["object_id", "sequence"])
    kind = "start, route, outcome, status"
    sums = ", ".join(f"SUM({name}) AS {name}" for name in ("seconds", *_LATENCIES))
    for table in ("usage_minutes", "usage_hours", "usage_days"):
        op.execute(
            f"INSERT INTO {table} (subject, {kind}, seconds, {', '.join(_LATENCIES)}) "  # noqa: S608 - names of ours
            f"SELECT owners.account_id, {kind}, {sums} FROM {table} "
            "JOIN (SELECT id, account_id FROM keys UNION ALL SELECT id, account_id FROM oauth_grants) AS owners "
            f"ON owners.id = {table}.subject "
            f"GROUP BY owners.account_id, {kind}"
        )
