"""Records sign-ins in the audit log and the process log (ASVS 5.0 16.3.1), and never a password.

The sign-in limits bound how many successful and failed attempts there are. Refused attempts are not bounded, so at most
one row a minute is written for each kind and origin, with the number of attempts.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from machpay_gateway.core.accounts.user import User, masked_email
from machpay_gateway.core.keys.audit import Actor, Change
from machpay_gateway.core.text import mask_secrets

logger = logging.getLogger("machpay_gateway")

SYSTEM = "system"  # the account id of audit entries that belong to no account
_FLOOD_SECONDS = 60.0
_MOST_FLOODS = 256
_LONGEST_PATH = 200  # characters; the path comes from the caller
_TEXT = "%s: %s from %s, %s (request %s)"


@dataclass(slots=True)
class _RepeatedRefusals:
    since: float
    change: Change
    unwritten: int = 0


class SignInLog:
    """Writes entries to the audit log through *add_audit_entry*. *clock* returns seconds since the epoch."""

    def __init__(self, add_audit_entry: Callable[[Change], Awaitable[None]], *, clock: Callable[[], float]) -> None:
        self._add_audit_entry = add_audit_entry
        self._clock = clock
        self._floods: dict[str, _RepeatedRefusals] = {}

    def change(self, action: str, user: User | None, actor: Actor, after: Mapping[str, object] | None = None) -> Change:
        """Return the audit entry for *action*, in the log of the user's account, or of the system without a user."""
        account_id, object_id = (SYSTEM, "") if user is None else (user.account_id, user.id)
        return Change(self._clock(), actor, action, account_id, object_id, {}, dict(after or {}))

    async def failed(self, user: User | None, email: str, actor: Actor, reason: str) -> None:
        """Record a wrong password or an unknown email."""
        change = self._attempt("user.sign_in_failed", user, email, actor, reason)
        await self._add_audit_entry(change)
        log(change)

    async def throttled(self, user: User | None, email: str, actor: Actor, block: str) -> None:
        """Record an attempt that was refused before its password was checked."""
        change = self._attempt("user.sign_in_throttled", user, email, actor, "too many attempts")
        await self._of_flood(f"throttled {block if user is None else user.id}", change)

    async def refused(self, user: User, actor: Actor, reason: str, path: str) -> None:
        """Record that the Console refused a request of *user*."""
        change = self.change(
            "console.refused", user, actor, {"reason": reason, "path": mask_secrets(path)[:_LONGEST_PATH]}
        )
        await self._of_flood(f"refused {user.id} {reason}", change)

    def _attempt(self, action: str, user: User | None, email: str, actor: Actor, reason: str) -> Change:
        after = {"reason": reason} | ({} if user is not None else {"email": masked_email(email)})
        return self.change(action, user, actor, after)

    async def _of_flood(self, key: str, change: Change) -> None:
        now = self._clock()
        over = [name for name, flood in self._floods.items() if now - flood.since >= _FLOOD_SECONDS]
        ended = {name: self._floods.pop(name) for name in over}
        if key not in self._floods and key not in ended and len(self._floods) >= _MOST_FLOODS:
            key = "others"
        flood = self._floods.get(key)
        if flood is not None:
            flood.unwritten += 1
            flood.change = change
        else:
            self._floods[key] = _RepeatedRefusals(now, change)
            before = ended.pop(key, None)
            ended[key] = _RepeatedRefusals(now, change, 1 + (0 if before is None else before.unwritten))
        for each in ended.values():
            if each.unwritten:
                await self._write(each)

    async def _write(self, flood: _RepeatedRefusals) -> None:
        change = replace(flood.change, after={**flood.change.after, "attempts": flood.unwritten})
        await self._add_audit_entry(change)
        log(change)


def log(change: Change) -> None:
    """Write *change* to the process log."""
    fields = {
        "action": change.action,
        "who": change.object_id or str(change.after.get("email", "")),
        "address": change.actor.address,
        "reason": str(change.after.get("reason", "done")),
        "request_id": change.actor.request_id,
    }
    level = logging.WARNING if "reason" in change.after else logging.INFO
    logger.log(level, _TEXT, *fields.values(), extra=fields)
