"""The audit log: who changed what, chained so that a changed or a missing row shows.

Each row's digest covers the row and the digest before it, and the log's head names the last row. Whoever can write the
whole database can write a whole new chain; against that, keep the head's digest somewhere else and compare.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

import orjson

from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.text import format_moment_or_none

ActorKind = Literal[
    "operator", "application", "api_key", "session", "oauth", "jwt", "scanner", "user", "client", "anonymous"
]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes a change and, as far as is known, from which *address* and in which request."""

    kind: ActorKind
    id: str = ""
    address: str | None = None
    request_id: str | None = None


APPLICATION = Actor("application")  # the program that this runs in, by its own code


@dataclass(frozen=True, slots=True)
class Change:
    """One mutation. *before* and *after* hold what differs, and never a secret or its digest."""

    at: float
    actor: Actor
    action: str
    account_id: str
    object_id: str
    before: Mapping[str, object]
    after: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class AuditRow:
    """A change as it is kept. *before* and *after* are JSON text, as it was hashed."""

    sequence: int
    at: float
    actor_kind: str
    actor_id: str
    address: str | None
    request_id: str | None
    action: str
    account_id: str
    object_id: str
    before: str
    after: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which rows are asked for: those of which all that is given is true; None is not asked about.

    *action* is one, or its beginning where it ends with a dot (`key.`). *since* and *until* are seconds since the
    epoch, the latter's own moment left out.
    """

    action: str | None = None
    actor_id: str | None = None
    object_id: str | None = None
    since: float | None = None
    until: float | None = None

    def matches(self, row: AuditRow) -> bool:
        """Tell whether *row* is one of them."""
        action = self.action
        return (
            (action is None or row.action == action or (action.endswith(".") and row.action.startswith(action)))
            and self.actor_id in (None, row.actor_id)
            and self.object_id in (None, row.object_id)
            and (self.since is None or row.at >= self.since)
            and (self.until is None or row.at < self.until)
        )


EVERYTHING = AuditFilter()


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The end of the log: the last row's place and digest."""

    sequence: int = 0
    digest: bytes = bytes(32)


def next_row(head: AuditHead, change: Change) -> AuditRow:
    """Return *change* as the row that follows *head*."""
    actor = change.actor
    fields = (
        head.sequence + 1,
        change.at,
        actor.kind,
        actor.id,
        actor.address,
        actor.request_id,
        change.action,
        change.account_id,
        change.object_id,
        _text(change.before),
        _text(change.after),
    )
    return AuditRow(*fields, _digest(head.digest, fields))


def head_after(row: AuditRow) -> AuditHead:
    """Return the head of a log that ends with *row*."""
    return AuditHead(row.sequence, row.digest)


def verify_chain(head: AuditHead, rows: Iterable[AuditRow]) -> tuple[AuditHead, str | None]:
    """Follow the chain from *head* over *rows*; return how far it holds, and what is wrong with the next row if any."""
    for row in rows:
        if row.sequence != head.sequence + 1:
            return head, f"row {head.sequence + 1} is missing"
        if row.digest != _digest(head.digest, _fields(row)):
            return head, f"row {row.sequence} was changed"
        head = head_after(row)
    return head, None


def difference(
    before: Mapping[str, object], after: Mapping[str, object]
) -> tuple[dict[str, object], dict[str, object]]:
    """Return of two states with the same names what is different: as it was, and as it is."""
    names = [name for name in before if before[name] != after[name]]
    return {name: before[name] for name in names}, {name: after[name] for name in names}


def key_state(record: KeyRecord) -> dict[str, object]:
    """Return what the log tells of a key: its settings, and of its secrets what may be shown."""
    moments = {
        "expires_at": record.expires_at,
        "revoked_at": record.revoked_at,
        "last_rotated_at": record.last_rotated_at,
    }
    secrets = [{"masked": s.masked, "expires_at": format_moment_or_none(s.expires_at)} for s in record.secrets]
    return {
        "name": record.name,
        "environment": record.environment,
        "scopes": list(record.scopes),
        "allowed_ips": list(record.allowed_ips),
        "metadata": dict(record.metadata),
        "secrets": secrets,
        **{name: format_moment_or_none(moment) for name, moment in moments.items()},
    }


def _text(values: Mapping[str, object]) -> str:
    return orjson.dumps(values, option=orjson.OPT_SORT_KEYS).decode()


def _fields(row: AuditRow) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in AuditRow.__slots__ if name != "digest")


def _digest(previous: bytes, fields: tuple[object, ...]) -> bytes:
    # `default`: a column that was tampered with may hold anything, and is to be found out, not to fail.
    return sha256(previous + orjson.dumps(fields, default=repr)).digest()
