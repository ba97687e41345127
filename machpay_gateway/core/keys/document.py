"""Objects as JSON has them: the key API and the command line show the same."""

from typing import Any

import orjson

from machpay_gateway.core.keys.audit import AuditRow
from machpay_gateway.core.keys.key import KeyRecord, SecretRecord
from machpay_gateway.core.text import format_moment, format_moment_or_none


def key_document(record: KeyRecord, now: float) -> dict[str, Any]:
    """Return the key, its status true at *now*."""
    return {
        "id": record.id,
        "object": "key",
        "account_id": record.account_id,
        "name": record.name,
        "environment": record.environment,
        "tier": record.tier,
        "scopes": list(record.scopes),
        "allowed_ips": list(record.allowed_ips),
        "status": str(record.status(now)),
        "masked": record.masked,
        "created_at": format_moment(record.created_at),
        "last_used_at": format_moment_or_none(record.last_used_at),
        "last_rotated_at": format_moment_or_none(record.last_rotated_at),
        "rotation_due": record.is_rotation_due(now),
        "expires_at": format_moment_or_none(record.expires_at),
        "metadata": dict(record.metadata),
        "secrets": [_secret(secret, is_current=not at) for at, secret in enumerate(record.secrets)],
    }


def audit_document(row: AuditRow) -> dict[str, Any]:
    """Return the row of the audit log, without what only its verification needs."""
    return {
        "id": f"audit_{row.sequence}",
        "object": "audit_entry",
        "number": row.sequence,
        "at": format_moment(row.at),
        "actor": {"kind": row.actor_kind, "id": row.actor_id, "address": row.address, "request_id": row.request_id},
        "action": row.action,
        "account_id": row.account_id,
        "object_id": row.object_id,
        "before": orjson.loads(row.before),
        "after": orjson.loads(row.after),
    }


def _secret(secret: SecretRecord, *, is_current: bool) -> dict[str, Any]:
    return {
        "masked": secret.masked,
        "current": is_current,
        "created_at": format_moment(secret.created_at),
        "expires_at": format_moment_or_none(secret.expires_at),
        "last_used_at": format_moment_or_none(secret.last_used_at),
    }
