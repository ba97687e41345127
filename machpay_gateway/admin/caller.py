"""The caller of the key API. `core.accounts.management` decides what it may do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from machpay_gateway.core.accounts.management import (
    ManagedRecord,
    ManagementAction,
    Manager,
    may_assign,
    may_manage,
    principal_manager,
)
from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.errors import NotPermitted
from machpay_gateway.core.limits.admission import Admitted
from machpay_gateway.web.request_facts import actor_of, facts_of


@dataclass(frozen=True, slots=True)
class Caller:
    """The principal of an admitted request, its admission by the limiter, and the *facts* of the request.

    *actor* is the caller as the audit log names it, with its authority: every use case takes it.
    """

    principal: Principal
    admission: Admitted
    facts: RequestFacts
    actor: Manager = field(init=False)

    def __post_init__(self) -> None:
        actor = actor_of(self.principal.kind, self.principal.id, self.facts)
        object.__setattr__(self, "actor", principal_manager(self.principal, actor))

    @property
    def account_id(self) -> str:
        """The account that the caller acts for. Raises NotPermitted when there is none."""
        if self.actor.account_id is None:  # the services would take None for every account
            raise NotPermitted("This credential belongs to no account: use an API key.")
        return self.actor.account_id

    @property
    def environment(self) -> str | None:
        """The only environment that the caller has access to; None for all of them."""
        return self.actor.environment

    def can_read(self, record: ManagedRecord) -> bool:
        """Tell whether the caller may read *record*. One that it may not read is reported as not found."""
        return may_manage(self.actor, ManagementAction.READ, record) is None

    def may_assign(self, scope: str, current: frozenset[str] = frozenset()) -> bool:
        """Tell whether the caller may assign *scope* to a record, or leave it there as one of its *current* scopes."""
        return may_assign(self.actor, scope, current)


def caller_of(scope: Mapping[str, Any]) -> Caller:
    """Return the caller of a request that the middleware admitted."""
    return Caller(scope["machpay"], scope["machpay_admission"], facts_of(scope))
