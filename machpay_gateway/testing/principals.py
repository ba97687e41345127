"""A given caller in place of credentials, while everything that the policy says about callers stays in force.

For the time of a test, the middleware uses a copy of its gateway. The copy identifies nobody, opens nothing, limits
nothing and records nothing; routes, scopes and environments are those of the application. So nothing of it is on the
path of a request in production.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from types import TracebackType
from typing import Any, Final

from machpay_gateway.core.decision.decision import Allowed, Decision, Denied, admit
from machpay_gateway.core.decision.policy import Policy
from machpay_gateway.core.decision.principal import ANONYMOUS, Principal
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.core.scopes import Scopes, check_scope_name, unknown_scopes
from machpay_gateway.gate import PendingIdentity
from machpay_gateway.gateway import Gateway
from machpay_gateway.hooks import PENDING, CheckHooks
from machpay_gateway.telemetry.steps import StepTimes
from machpay_gateway.testing.applications import Guard, find_guards


class _FromArguments:
    """Says that the principal is made of the other arguments; None is a caller without credentials."""


_FROM_ARGUMENTS: Final = _FromArguments()


class PrincipalGate:
    """Decides about requests of *principal* by *policy* and the application's own checks.

    None is a caller without credentials.
    """

    def __init__(self, policy: Policy, principal: Principal | None, hooks: CheckHooks | None) -> None:
        self.policy = policy
        self.hooks = hooks
        self._principal = principal

    def with_policy(self, policy: Policy) -> "PrincipalGate":
        """Return a gate that decides by *policy* about the same caller."""
        return PrincipalGate(policy, self._principal, self.hooks)

    async def decide(self, facts: RequestFacts) -> Decision:
        """Return the decision of `Gate`, whatever credential the request has."""
        decision = self.decide_nowait(facts)
        return await self.resolve(decision) if isinstance(decision, PendingIdentity) else decision

    def decide_nowait(self, facts: RequestFacts) -> Decision | PendingIdentity:
        """Return the decision, or what waits for a check of the application."""
        route = self.policy.route_for(facts)
        if not isinstance(route, Route):
            return Denied(route)
        if route.public:
            return Allowed(ANONYMOUS, None, route)
        principal, now = self._principal, time.time()
        if principal is None:
            return Denied(Reason.MISSING_CREDENTIALS, "a test without a caller", route)
        if denied := admit(facts, route, principal, now):
            return denied
        refused = None if self.hooks is None else self.hooks.check_nowait(facts, route, principal, now)
        return PendingIdentity(facts, route, b"") if refused is PENDING else refused or Allowed(principal, None, route)

    async def resolve(self, pending: PendingIdentity) -> Decision:
        """Return the decision of *pending*, after the checks that have to be awaited."""
        facts, route = pending.facts, pending.route
        assert self.hooks is not None  # noqa: S101 - what is pending waits for them
        assert self._principal is not None  # noqa: S101 - as above
        refused = await self.hooks.check(facts, route, self._principal, time.time())
        return refused or Allowed(self._principal, None, route)

    async def recheck(self, facts: RequestFacts, route: Route) -> Denied | None:
        """Return None: a caller that is given stays valid."""


class PrincipalOverride:
    """Requests to *app* come from *principal*, between `start` and `stop`, or within `with`."""

    def __init__(self, app: object, principal: Principal | None) -> None:
        self.principal = principal
        self._app = app
        self._changes: list[tuple[Guard, Gateway, Callable[[], None]]] = []

    def start(self) -> None:
        """Begin. Beginning twice is beginning once."""
        if self._changes:
            return
        for guard in find_guards(self._app):  # it may have been built since
            real = guard.gateway
            stand_in = _stand_in(real, PrincipalGate(real.policy, self.principal, real.gate.hooks))
            self._changes.append((guard, stand_in, guard.use(stand_in)))

    def stop(self) -> None:
        """End, and leave nothing behind. Ending twice is ending once.

        Raises RuntimeError if another one for the same application began later and has not ended.
        """
        changes, self._changes = self._changes, []
        overlaps = False
        for guard, stand_in, undo in reversed(changes):
            current = guard.current
            gate: object = None if current is None else current.gate
            if not isinstance(gate, PrincipalGate):
                continue  # an earlier one has ended in the wrong order, and this one with it
            overlaps |= current is not stand_in
            undo()
        if overlaps:
            raise RuntimeError(
                "as_principal: another one for the same application began later and has not ended; end them in reverse "
                "order, and give tests that run at the same time applications of their own"
            )

    def __enter__(self) -> Principal | None:
        self.start()
        return self.principal

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def as_principal(
    app: object,
    principal: Principal | _FromArguments | None = _FROM_ARGUMENTS,
    *,
    scopes: str | Iterable[str] = (),
    tier: str | None = None,
    owner: str | None = None,
    account: str = "acct_test",
    environment: str = "live",
    name: str = "test",
) -> PrincipalOverride:
    """Return a context manager in which every request to *app* comes from one caller, without credentials.

    `with as_principal(app, scopes="skills:list"):` is a caller with an API key of these *scopes*: names, or one text of
    names separated by spaces. *tier* is `standard` unless given, or `test` in that *environment*. *account* is the id
    of its account, *owner* the owner of its key. Its id is `key_` and the *name*. `as_principal(app, None)` is a caller
    without credentials, `as_principal(app, principal)` any `Principal`. The value of `with` is the principal.

    *app* is the guarded application, or one with guarded applications in it. Its routes, scopes and environments are in
    force, and no limit is. Raises ConfigurationError if no MachPayAuth guards *app*, for a scope or a tier that is not
    defined there, and for a principal beside its parts.
    """
    guards = find_guards(app)
    if not isinstance(principal, _FromArguments):
        if scopes or tier or owner:
            raise ConfigurationError("as_principal takes a principal or its scopes, tier and owner, not both")
        return PrincipalOverride(app, principal)
    policies = [guard.gateway.policy for guard in guards]
    names = scopes.split() if isinstance(scopes, str) else tuple(scopes)
    _check_scopes(names, policies)
    tier = tier or ("test" if environment == "test" else "standard")
    limits = _tier_named(tier, policies)
    key_id = f"key_{name}"
    caller = Principal(
        kind="api_key",
        id=key_id,
        name=name,
        account_id=account,
        subject=key_id,
        environment=environment,
        tier=tier,
        limits=limits,
        scopes=Scopes(frozenset(names)),
        owner=owner,
        account_tier=tier,
        shared_limits=limits,
    )
    return PrincipalOverride(app, caller)


def _check_scopes(names: Iterable[str], policies: Sequence[Policy]) -> None:
    defined = {scope for policy in policies for scope in policy.scopes}
    for name in names:
        check_scope_name(name)
    if unknown := unknown_scopes(names, defined):
        raise ConfigurationError(
            f"Scope {unknown[0]!r} is not defined; known scopes: {', '.join(sorted(defined))}. Add it to the setting "
            "`scopes`, or have a route require it"
        )


def _tier_named(name: str, policies: Sequence[Policy]) -> Tier:
    for policy in policies:
        if name in policy.tiers:
            return policy.tiers[name]
    raise ConfigurationError(f"Tier {name!r} is not defined; known tiers: {', '.join(policies[0].tiers)}")


class _Nothing:
    """A lifecycle and a recorder of a gateway that has nothing to open, close or store."""

    async def serve(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    def record(self, *_: object) -> None:
        """Do nothing."""


def _stand_in(gateway: Gateway, gate: PrincipalGate) -> Gateway:
    """Return a copy of *gateway* that decides by *gate*, opens nothing and records nothing."""
    parts: dict[str, Any] = {field.name: getattr(gateway, field.name) for field in fields(Gateway)}
    nothing = _Nothing()
    own = {"gate": gate, "lifecycle": nothing, "recorder": nothing, "steps": StepTimes(), "traces": None}
    return Gateway(**(parts | own))
