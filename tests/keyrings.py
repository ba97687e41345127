"""What the tests of keys share: a clock that stands still, randomness that repeats itself, and two accounts."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.keys.audit import APPLICATION, Change
from machpay_gateway.core.keys.key import KeyRecord, SecretRecord
from machpay_gateway.core.keys.ports import ChangedRecord
from machpay_gateway.core.scopes import Scopes

NOW = 1_700_000_000.0
ACME = Account("acct_acme", "Acme", "standard", 100.0)
GLOBEX = Account("acct_globex", "Globex", "standard", 200.0)
SCOPES = ("skills:execute", "skills:list", "keys:manage")

Announced = list[tuple[str, int, str]]


def counted_entropy() -> Callable[[int], bytes]:
    numbers = iter(range(1_000_000))
    return lambda size: hashlib.sha256(str(next(numbers)).encode()).digest()[:size]


def logged(at: float = NOW) -> Change:
    """Return what a store writes into its audit log beside a change that is tried without its use case."""
    return Change(at, APPLICATION, "test", ACME.id, "object", {}, {})


def noting(announced: list[Any]) -> Callable[[Sequence[ChangedRecord]], Awaitable[None]]:
    """Return an `announce` that writes down what it is told."""

    async def announce(changed: Sequence[ChangedRecord]) -> None:
        announced.extend(changed)

    return announce


def stored_key(number: int, **settings: Any) -> KeyRecord:  # noqa: ANN401 - any of a record's fields
    """Return a key of ACME's as a store keeps it, all of it told apart by its *number*."""
    secret = SecretRecord(bytes([number]) * 32, "sk_live_…0001", NOW)
    fields: dict[str, Any] = {
        "id": f"key_{number}",
        "account_id": ACME.id,
        "name": "deploy",
        "environment": "live",
        "tier": ACME.tier,
        "account_tier": ACME.tier,
        "scopes": Scopes(frozenset({"skills:list"})),
        "allowed_ips": (),
        "created_at": NOW,
        "secrets": (secret,),
    }
    return KeyRecord(**(fields | settings))
