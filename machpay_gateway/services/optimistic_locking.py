"""Optimistic locking: how every use case changes a stored record.

The new state is made from the record as it is stored now, and is written over that state only. When another request has
changed the record in between, nothing is written and all steps are repeated. That includes authorization: the scopes of
a key may have grown since the last read.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from machpay_gateway.core.accounts.management import ManagementAction, authorize
from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.core.keys.audit import Actor, Change, difference
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.keys.ports import ChangedRecord
from machpay_gateway.core.oauth.client import OAuthClient

MAX_ATTEMPTS = 10

# Drops what workers have cached of these keys, grants and accounts below their new versions.
Invalidate = Callable[[Sequence[ChangedRecord]], Awaitable[None]]


R = TypeVar("R")
V = TypeVar("V", KeyRecord, OAuthClient)  # managed, and with a version of its own

Load = Callable[[], Awaitable[R | None]]
# Makes the new state of a record, without I/O. Returns an equal record when there is nothing to change.
Edit = Callable[[R], R]
Precondition = Callable[[R], None]
# Writes the second record over the first with a row in the audit log. Returns the keys, grants and accounts that
# this changed; None, and nothing is written, when the first is no longer what is stored.
Write = Callable[[R, R, Change], Awaitable[Sequence[ChangedRecord] | None]]


async def update_record(
    what: str,
    load: Load[R],
    edit: Edit[R],
    write: Write[R],
    *,
    describe: Callable[[R, R], Change],
    invalidate: Invalidate,
) -> R | None:
    """Return the record as *edit* makes it, stored; None when there is none to load.

    *describe* returns the entry for the audit log, from the record before and after. Raises StoreUnavailable, which
    names *what* is updated, when the record was changed in between at each attempt.
    """
    for _ in range(MAX_ATTEMPTS):
        before = await load()
        if before is None:
            return None
        after = edit(before)
        if after == before:
            return before
        versions = await write(before, after, describe(before, after))
        if versions is None:
            continue
        await invalidate(versions)
        return after
    raise StoreUnavailable(f"update of {what}: it was changed {MAX_ATTEMPTS} times in between")


@dataclass(frozen=True, slots=True)
class ManagedUpdate(Generic[V]):
    """An update of a key or an OAuth client by *actor*, who must be allowed to do *action*.

    *name* is the action's name in the audit log. *precondition* raises unless the record is what the caller takes it
    for; it sees the very record that is changed.
    """

    name: str
    action: ManagementAction
    actor: Actor
    precondition: Precondition[V] | None = None


async def update_managed_record(  # noqa: PLR0913 - what differs between keys and OAuth clients
    what: str,
    load: Load[V],
    edit: Edit[V],
    write: Write[V],
    update: ManagedUpdate[V],
    *,
    check: Callable[[Actor, V, V], None],
    state: Callable[[V], Mapping[str, object]],
    clock: Callable[[], float],
    invalidate: Invalidate,
) -> V | None:
    """Do as `update_record` does on behalf of a manager, and raise the version; None when the actor sees no record.

    *check* raises NotPermitted when the actor may not make the second record of the first. *state* is what the audit
    log says of a record. Raises NotPermitted.
    """

    async def load_authorized() -> V | None:
        return authorize(update.actor, update.action, await load())

    def edit_checked(before: V) -> V:
        if update.precondition is not None:
            update.precondition(before)
        after = edit(before)
        if after == before:
            return before
        check(update.actor, before, after)
        return replace(after, version=before.version + 1)

    def describe(before: V, after: V) -> Change:
        states = difference(state(before), state(after))
        return Change(clock(), update.actor, update.name, before.account_id, before.id, *states)

    return await update_record(what, load_authorized, edit_checked, write, describe=describe, invalidate=invalidate)
