"""The account: the tenant."""

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
