"""The audit log: who changed what, as a hash chain that reveals changed and missing rows.

Each row's digest covers the row and the previous digest, and the head of the log names the last row. An attacker who
can write the whole database can also write a new chain. To detect that, store the head's digest elsewhere and compare.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

import orjson

ActorKind = Literal[
    "operator", "application", "api_key", "session", "oauth", "jwt", "custom", "scanner", "user", "client", "anonymous"
]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes a change and, if known, from which *address* and in which request."""

    kind: ActorKind
    id: str = ""
    address: str | None = None
    request_id: str | None = None


APPLICATION = Actor("application")  # the embedding program, calling from its own code


@dataclass(frozen=True, slots=True)
class Change:
    """One mutation. *before* and *after* hold the values that differ, never a secret or its digest."""

    at: float
    actor: Actor
    action: str
    account_id: str
    object_id: str
    before: Mapping[str, object]
    after: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class AuditRow:
    """A stored change. *before* and *after* are the JSON text that was hashed."""

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
    """A selection of rows: those that meet every condition. None is no condition.

    *action* is a whole action, or a prefix that ends with a dot (`key.`). *since* (inclusive) and *until* (exclusive)
    are seconds since the epoch.
    """

    action: str | None = None
    actor_id: str | None = None
    object_id: str | None = None
    since: float | None = None
    until: float | None = None

    def matches(self, row: AuditRow) -> bool:
        """Tell whether *row* meets every condition."""
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
    """The end of the log: the sequence number and the digest of the last row."""

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
    """Return the head of the valid part of the chain from *head* over *rows*, and the problem with the next row."""
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
    """Return the values that differ between two states with the same names: the old ones and the new ones."""
    names = [name for name in before if before[name] != after[name]]
    return {name: before[name] for name in names}, {name: after[name] for name in names}


def _text(values: Mapping[str, object]) -> str:
    return orjson.dumps(values, option=orjson.OPT_SORT_KEYS).decode()


def _fields(row: AuditRow) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in AuditRow.__slots__ if name != "digest")


def _digest(previous: bytes, fields: tuple[object, ...]) -> bytes:
    # `default`: a tampered column may hold any type. It must be reported as changed instead of raising here.
    return sha256(previous + orjson.dumps(fields, default=repr)).digest()
