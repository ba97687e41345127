"""The account: the tenant."""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Account:
    """The tenant: owns keys, and carries the tier of its live traffic."""

    id: str
    name: str
    tier: str
    created_at: float


def key_tier(environment: str, account_tier: str) -> str:
    """Return the account's tier in *environment*: its own for live traffic, `test` for test traffic."""
    return account_tier if environment == "live" else "test"


def describe_tier(tier: str, configured: Collection[str], *, is_own: bool = False) -> str:
    """Return *tier* for people, marked if it is not *configured*, or if it is a key's own and not the account's."""
    marks = [mark for mark, applies in (("own", is_own), ("unknown", tier not in configured)) if applies]
    return f"{tier} ({', '.join(marks)})" if marks else tier
