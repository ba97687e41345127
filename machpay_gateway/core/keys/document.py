"""Keys and audit entries as JSON documents, which the key API and the command line share.

Each document is declared once, as a TypedDict beside the function that builds it: the type checker compares the two,
and OpenAPI's schemas are generated from the types (`admin.openapi`).
"""

from collections.abc import Collection
from typing import Annotated, Any, Literal, get_args

import orjson
from typing_extensions import TypedDict  # pydantic reads typing's own from Python 3.12 on

from machpay_gateway.core.json_schema import Count, JsonSchema, Timestamp
from machpay_gateway.core.keys.audit import ActorKind, AuditRow
from machpay_gateway.core.keys.key import ENVIRONMENTS, KeyRecord, KeyStatus, SecretRecord
from machpay_gateway.core.text import format_moment, format_moment_or_none

Environment = Annotated[str, JsonSchema(enum=list(ENVIRONMENTS))]


class KeySecretDocument(TypedDict):
    """One of a key's secrets, without anything that authenticates."""

    masked: str
    current: bool
    created_at: Timestamp
    expires_at: Timestamp | None
    last_used_at: Annotated[
        Timestamp | None, JsonSchema(description="When a request last presented it, whether admitted or refused.")
    ]


class KeyDocument(TypedDict):
    """A key. Its id, settings and quota outlive its secrets."""

    id: str
    object: Literal["key"]
    account_id: str
    name: str
    owner: Annotated[str | None, JsonSchema(description="Whom within the account the key is for.")]
    environment: Environment
    tier: Annotated[str, JsonSchema(description="The tier that its limits come from.")]
    own_tier: Annotated[
        str | None,
        JsonSchema(description="The tier that an operator gave this key; null: `tier` is that of the account."),
    ]
    tier_configured: Annotated[
        bool, JsonSchema(description="Whether the gateway's settings have the tier. If not, an operator must add it.")
    ]
    scopes: list[str]
    allowed_ips: list[str]
    status: Annotated[str, JsonSchema(enum=list(map(str, KeyStatus)))]
    masked: str
    created_at: Timestamp
    last_used_at: Annotated[Timestamp | None, JsonSchema(description="The last use of any secret it has ever had.")]
    last_rotated_at: Timestamp | None
    rotation_due: Annotated[bool, JsonSchema(description="Whether its secret is older than 90 days.")]
    expires_at: Timestamp | None
    metadata: dict[str, str]
    secrets: Annotated[
        list[KeySecretDocument],
        JsonSchema(description="The current secret and, during a grace period, the previous one."),
    ]


class IssuedKeyDocument(KeyDocument):
    """A key with its new secret."""

    secret: Annotated[str, JsonSchema(description="Shown only once.")]


class AuditActorDocument(TypedDict):
    """Who made a change and, if known, from where."""

    kind: Annotated[str, JsonSchema(enum=list(get_args(ActorKind)))]
    id: str
    address: str | None
    request_id: str | None


class AuditEntryDocument(TypedDict):
    """A change, with the changed values before and after it."""

    id: str
    object: Literal["audit_entry"]
    number: Count
    at: Timestamp
    actor: AuditActorDocument
    action: str
    account_id: str
    object_id: str
    before: dict[str, Any]
    after: dict[str, Any]


def key_document(record: KeyRecord, now: float, tiers: Collection[str]) -> KeyDocument:
    """Return the key with its status at *now*; *tiers* are the configured ones."""
    return {
        "id": record.id,
        "object": "key",
        "account_id": record.account_id,
        "name": record.name,
        "owner": record.owner,
        "environment": record.environment,
        "tier": record.tier,
        "own_tier": record.own_tier,
        "tier_configured": record.tier in tiers,
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
        "secrets": [_secret_document(secret, is_current=not at) for at, secret in enumerate(record.secrets)],
    }


def issued_key_document(record: KeyRecord, secret: str, now: float, tiers: Collection[str]) -> IssuedKeyDocument:
    """Return the key with its new *secret*."""
    return {**key_document(record, now, tiers), "secret": secret}


def audit_document(row: AuditRow) -> AuditEntryDocument:
    """Return the audit entry, without the digest that only verification needs."""
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


def _secret_document(secret: SecretRecord, *, is_current: bool) -> KeySecretDocument:
    return {
        "masked": secret.masked,
        "current": is_current,
        "created_at": format_moment(secret.created_at),
        "expires_at": format_moment_or_none(secret.expires_at),
        "last_used_at": format_moment_or_none(secret.last_used_at),
    }
