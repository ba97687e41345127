"""Who calls the key API, and what they may do with a key: the rules beyond the scope that the route requires."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from machpay_gateway.admin.problems import ProblemError
from machpay_gateway.core.admission import Granted
from machpay_gateway.core.audit import Actor
from machpay_gateway.core.facts import RequestFacts
from machpay_gateway.core.principal import Principal
from machpay_gateway.core.scopes import wildcard_of
from machpay_gateway.web.incoming import actor_of, facts_of

MANAGING = "keys:manage"
# A key that could give these on would make more of itself: they come from an operator or a Console admin.
NEVER_GRANTED = frozenset({MANAGING, wildcard_of(MANAGING)})


class Owned(Protocol):
    """A record of an account's, of one environment: a key, a client, a grant."""

    @property
    def account_id(self) -> str:
        """Whose it is."""

    @property
    def environment(self) -> str:
        """Which traffic it is for."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The principal of a request that was let through, on what it was granted, and the *facts* of the request."""

    principal: Principal
    grant: Granted
    facts: RequestFacts

    @property
    def account_id(self) -> str:
        """The account that the caller acts for. Raises ProblemError: a token of another issuer has none."""
        if self.principal.account_id is None:
            raise ProblemError("not_permitted", "Tokens of other issuers belong to no account: use an API key.")
        return self.principal.account_id

    @property
    def environment(self) -> str | None:
        """The only environment of which the caller sees anything; None when it sees all."""
        # Whoever finds a key that was made for trying things out must not find the way to real money behind it.
        return "test" if self.principal.environment == "test" else None

    @property
    def actor(self) -> Actor:
        """The caller, as the audit log names it."""
        return actor_of(self.principal.kind, self.principal.id, self.facts)

    def sees(self, record: Owned) -> bool:
        """Tell whether *record* exists, as far as the caller is concerned."""
        return record.account_id == self.account_id and self.environment in (None, record.environment)

    def may_grant(self, name: str, kept: frozenset[str] = frozenset()) -> bool:
        """Tell whether a key may be given the scope *name*: one that the caller holds, or the key has already."""
        return name in kept or (name in self.principal.scopes and name not in NEVER_GRANTED)


def caller_of(scope: Mapping[str, Any]) -> Caller:
    """Return who sent the request that the middleware let through."""
    return Caller(scope["machpay"], scope["machpay_grant"], facts_of(scope))
