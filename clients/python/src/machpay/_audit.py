"""The audit log of the account, as returned by the API."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

from machpay._parsing import ObjectParser, mapping, moment, optional_text, optional_whole, text
from machpay._response import Response
from machpay._result import Result


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditActor:
    """Who made a change and, if known, from where."""

    kind: str | None = None
    id: str | None = None
    address: str | None = None
    request_id: str | None = None
    extra: Mapping[str, object] = field(default_factory=dict, repr=False, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry(Result):
    """A change of the object *object_id*, with the changed values *before* and *after* it."""

    id: str
    number: int | None = None
    at: dt.datetime | None = None
    actor: AuditActor = field(default_factory=AuditActor)
    action: str | None = None
    account_id: str | None = None
    object_id: str | None = None
    before: Mapping[str, object] = field(default_factory=dict, hash=False)
    after: Mapping[str, object] = field(default_factory=dict, hash=False)


def audit_entry_from(members: Mapping[str, object], response: Response) -> AuditEntry:
    """Return one of the entries in *response*."""
    parser = ObjectParser(members)
    parser.optional("object", text, "audit_entry")
    return AuditEntry(
        id=parser.required("id", text),
        number=parser.optional("number", optional_whole, None),
        at=parser.optional("at", moment, None),
        actor=parser.optional("actor", _actor, AuditActor()),
        action=parser.optional("action", optional_text, None),
        account_id=parser.optional("account_id", optional_text, None),
        object_id=parser.optional("object_id", optional_text, None),
        before=parser.optional("before", mapping, {}),
        after=parser.optional("after", mapping, {}),
        extra=parser.rest(),
        response=response,
    )


def _actor(value: object) -> AuditActor:
    parser = ObjectParser(mapping(value))
    return AuditActor(
        kind=parser.optional("kind", optional_text, None),
        id=parser.optional("id", optional_text, None),
        address=parser.optional("address", optional_text, None),
        request_id=parser.optional("request_id", optional_text, None),
        extra=parser.rest(),
    )
