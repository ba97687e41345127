"""The gate: the order of I/O in a decision, and what follows when something does not answer.

`decide_at_once` is the whole walk when nothing has to be fetched, which is nearly always; it needs no task and no
await. `decide` goes on from where that stopped. Nothing else in the package decides to fail open or closed.
"""

import time
from asyncio import CancelledError
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from machpay_gateway.core.decision.credential import (
    ApiKey,
    BoundToken,
    Proof,
    SignedToken,
    Unreadable,
    credential_of,
    parse_authorization,
)
from machpay_gateway.core.decision.decision import (
    Allowed,
    Decision,
    Denied,
    admit,
    conclude,
    demand_of,
    unavailable,
)
from machpay_gateway.core.decision.failures import Failures
from machpay_gateway.core.decision.policy import Policy
from machpay_gateway.core.decision.principal import ANONYMOUS, Principal
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import Unavailable
from machpay_gateway.core.jose.ports import KeyPrincipals, ProofVerifier, TokenVerifier
from machpay_gateway.core.limits.admission import (
    STALE,
    AdmissionRequest,
    Admitted,
    Answer,
    Exceeded,
    LimiterUnavailable,
    PendingAnswer,
    Stale,
    abandon,
)
from machpay_gateway.core.limits.ports import Limiter

_LOOKUPS = 10  # times the failure limit: look-ups of what may be a credential, from an address that keeps failing
_ROUNDS = 2  # a record found stale is loaded again once; changing faster than that is not a caller's doing
_ANSWERS = Admitted, Exceeded, LimiterUnavailable
_UNPROVED = "the token and its scheme do not agree on whether a key has to be proved"
_new = tuple.__new__  # half the cost of a NamedTuple's own constructor, on every request


@dataclass(frozen=True, slots=True)
class PendingIdentity:
    """A decision whose caller has to be looked up. *is_counted* when it was counted as a failure in advance.

    *is_slowed* when its address has failed too often, and only a good credential is let in.
    """

    facts: RequestFacts
    route: Route
    token: bytes
    is_counted: bool = False
    is_bound: bool = False  # and has to be proved
    is_slowed: bool = False

    def __repr__(self) -> str:
        return f"Unsettled({self.route.match!r})"  # never the token


class PendingAdmission(NamedTuple):
    """A decision that waits for the limiter's *answer* alone. A tuple, because one may be made for each request."""

    answer: PendingAnswer
    principal: Principal
    facts: RequestFacts
    route: Route
    token: bytes

    def __repr__(self) -> str:
        return f"Asked({self.route.match!r})"


class Gate:
    """Decides for every front. It holds no state of a request."""

    def __init__(
        self,
        policy: Policy,
        *,
        keys: KeyPrincipals,
        tokens: TokenVerifier | None,
        limiter: Limiter,
        failures: Failures,
        proofs: ProofVerifier | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Decide by *policy*. *clock* is in seconds since the epoch."""
        self.policy = policy
        self._literal = policy.literal
        self.limiter = limiter
        self._keys = keys
        self._tokens = tokens
        self._failures = failures
        self._lookups = failures.times(_LOOKUPS)
        self._proofs = proofs
        self._clock = clock

    async def decide(self, facts: RequestFacts) -> Decision:
        """Return whether the request may go on, and as whom."""
        decision = self.decide_at_once(facts)
        if isinstance(decision, PendingAdmission):
            decision = self.answered(decision, await _arrived(decision.answer))
        return await self.settle(decision) if isinstance(decision, PendingIdentity) else decision

    def decide_at_once(self, facts: RequestFacts) -> Decision | PendingAdmission | PendingIdentity:
        """Return the decision when it needs no I/O, else how far it came."""
        method, path, authorization, _, _, preflight_for, _ = facts
        route = self._literal.get((method, path))
        if route is None or preflight_for is not None:
            found = self.policy.route_for(facts)
            if not isinstance(found, Route):
                return Denied(found, "no route matches" if found is Reason.ROUTE_NOT_FOUND else "ambiguous path")
            route = found
        if route.public:
            return _new(Allowed, (ANONYMOUS, None, route))
        token = parse_authorization(authorization)
        if not isinstance(token, bytes):
            return self._unusual(facts, route, token)
        now = self._clock()
        digest = sha256(token).digest()
        principal = self._keys.cached(digest, now)
        if principal is None and self._tokens is not None:
            principal = self._tokens.cached(digest, now)
        if principal is None or principal.key is not None:
            return self._unknown(facts, route, token, digest, now)
        demand = demand_of(facts, route, principal, now)
        if not isinstance(demand, AdmissionRequest):
            return self._counted(facts, demand)
        answer = self.limiter.admit(demand)
        if isinstance(answer, _ANSWERS):
            return conclude(route, principal, answer)
        if answer is STALE:
            self._forget(principal)
            return PendingIdentity(facts, route, token)
        return _new(PendingAdmission, (answer, principal, facts, route, token))

    def answered(self, asked: PendingAdmission, answer: Answer) -> Decision | PendingIdentity:
        """Return what *asked* has become by the limiter's *answer*."""
        _, principal, facts, route, token = asked
        if answer is STALE:
            self._forget(principal)
            return PendingIdentity(facts, route, token)
        return conclude(route, principal, answer)

    async def settle(self, unsettled: PendingIdentity) -> Decision:
        """Return the decision that *unsettled* could not be, after the I/O that it needs."""
        try:
            decision = await self._settle(unsettled)
        except Unavailable as exc:
            decision = unavailable(unsettled.route, f"unavailable: {exc}")
        if not unsettled.is_counted:
            return self._counted(unsettled.facts, decision)
        counted_by, address, now = self._failures, unsettled.facts.address, self._clock()
        if unsettled.is_slowed:
            counted_by = self._lookups
        if not (isinstance(decision, Denied) and decision.reason is Reason.INVALID_CREDENTIALS):
            counted_by.forgive(address, now)
            return decision
        if unsettled.is_slowed:
            return _slow_down(decision.route, self._failures.wait(address, now), decision.principal)
        return decision

    async def may_go_on(self, facts: RequestFacts, route: Route) -> bool:
        """Tell whether whoever began a request that still goes on might begin it now."""
        return await self.why_not_now(facts, route) is None

    async def why_not_now(self, facts: RequestFacts, route: Route) -> Denied | None:
        """Return why a request in progress could not begin now, None if it could; nothing is taken from a quota.

        While that cannot be found out, it goes on: an outage of the key store should not end every stream.
        """
        token = parse_authorization(facts.authorization)
        token = token.token if isinstance(token, BoundToken) else token  # what had to be proved was, at the beginning
        if not isinstance(token, bytes):
            return Denied(Reason.INVALID_CREDENTIALS, "no credential", route)
        try:
            found: Principal | str = self._known(token) or await self._identify(token)
        except Unavailable:
            return None
        if isinstance(found, str):
            return Denied(Reason.INVALID_CREDENTIALS, found, route)
        return admit(facts, route, found, self._clock())

    def _unusual(self, facts: RequestFacts, route: Route, token: BoundToken | Unreadable) -> Decision | PendingIdentity:
        """Take a token with its proof to be settled, since no proof is good twice; refuse what is no credential."""
        if isinstance(token, Unreadable):
            return Denied(token.reason, token.detail, route)
        if self._proofs is None:
            return Denied(Reason.MISSING_CREDENTIALS, "unsupported authentication scheme", route)
        return self._unknown(facts, route, token.token, sha256(token.token).digest(), self._clock(), is_bound=True)

    def _unknown(
        self,
        facts: RequestFacts,
        route: Route,
        token: bytes,
        digest: bytes,
        now: float,
        *,
        is_bound: bool = False,
    ) -> Decision | PendingIdentity:
        """Spend no I/O on what cannot be a credential, and little on an address that keeps failing."""
        # What was in use just now goes on: strangers behind the same address cannot lock it out.
        if self._keys.holds(digest) or (self._tokens is not None and self._tokens.holds(digest)):
            return PendingIdentity(facts, route, token, is_bound=is_bound)
        credential = credential_of(token)
        if wait := self._failures.wait(facts.address, now):
            if not self._may_be_good(credential) or self._lookups.note(facts.address, now):
                return _slow_down(route, wait)
            # Many may share the address: good credentials get in, and failed look-ups have a bound of their own.
            return PendingIdentity(facts, route, token, is_counted=True, is_bound=is_bound, is_slowed=True)
        if isinstance(credential, Unreadable):
            return self._counted(facts, Denied(credential.reason, credential.detail, route))
        # Counted before it is looked up, and forgiven if it was none: many at once are as many.
        self._failures.note(facts.address, now)
        return PendingIdentity(facts, route, token, is_counted=True, is_bound=is_bound)

    def _may_be_good(self, credential: ApiKey | SignedToken | Unreadable) -> bool:
        """Tell whether I/O could show that *credential* is good: its checksum holds, or its issuer is accepted."""
        if isinstance(credential, SignedToken):
            return self._tokens is not None and self._tokens.may_verify(credential)
        return isinstance(credential, ApiKey)

    async def _settle(self, unsettled: PendingIdentity) -> Decision:
        """Fetch what is missing, and decide. A record that changed meanwhile is loaded once more."""
        facts, route, token = unsettled.facts, unsettled.route, unsettled.token
        proof: Proof | None = None
        is_proved = False
        for _ in range(_ROUNDS):
            found = await self._identify(token)
            if isinstance(found, str):
                return Denied(Reason.INVALID_CREDENTIALS, found, route)
            if unsettled.is_bound or found.key is not None:
                checked = self._proof(unsettled, found)
                if isinstance(checked, Denied):
                    return checked
                proof = checked
            demand = demand_of(facts, route, found, self._clock())
            if isinstance(demand, Denied):
                return demand
            # RFC 9449 §11.1: good once. Remembered last, so that what is refused leaves no trace in the limiter.
            if proof is not None and not is_proved:
                if self._proofs is None or not await self._proofs.is_first_use(proof):
                    return Denied(Reason.INVALID_PROOF, "proof: seen before", route, found)
                is_proved = True
            answer = self.limiter.admit(demand)
            if not isinstance(answer, Admitted | Exceeded | LimiterUnavailable | Stale):
                answer = await _arrived(answer)
            if answer is not STALE:
                return conclude(route, found, answer)
            self._forget(found)
        return unavailable(route, "the record keeps changing")

    def _proof(self, unsettled: PendingIdentity, principal: Principal) -> Proof | Denied:
        """Return the proof that the token is its sender's, used before or not, or why there is none."""
        if not unsettled.is_bound or principal.key is None or self._proofs is None:
            # RFC 9449 §7.2: a bound token without its proof is one that was stolen; and the other way about, a scheme
            # that promises what the token does not hold is somebody's mistake.
            return Denied(Reason.INVALID_CREDENTIALS, _UNPROVED, unsettled.route, principal)
        facts, token = unsettled.facts, unsettled.token
        proof = self._proofs.at_api(facts.proof, facts.method, facts.path or "", token, principal.key)
        return Denied(Reason.INVALID_PROOF, proof, unsettled.route, principal) if isinstance(proof, str) else proof

    def _known(self, token: bytes) -> Principal | None:
        """Return whose credential this is, if that needs no I/O: of many streams in progress nearly all are known."""
        now, digest = self._clock(), sha256(token).digest()
        principal = self._keys.cached(digest, now)
        if principal is None and self._tokens is not None:
            principal = self._tokens.cached(digest, now)
        return principal

    async def _identify(self, token: bytes) -> Principal | str:
        """Return whose credential this is, or for the log why it is nobody's."""
        match credential_of(token):
            case ApiKey() as key:
                return await self._keys.find(key) or "unknown key"
            case SignedToken() as signed if self._tokens is not None:
                return await self._tokens.verify(signed, self._clock())
        return "signed tokens are not accepted here"

    def _forget(self, principal: Principal) -> None:
        """Have the record that *principal* was made of loaded anew: the limiter knows of a later one."""
        if principal.kind == "oauth" and self._tokens is not None:
            self._tokens.forget(principal.subject)
        else:
            self._keys.forget(principal.subject)

    def _counted(self, facts: RequestFacts, decision: Decision) -> Decision:
        """Count a bad credential against its address; once there were too many, that is the answer instead."""
        if not isinstance(decision, Denied) or decision.reason is not Reason.INVALID_CREDENTIALS:
            return decision
        wait = self._failures.note(facts.address, self._clock())
        return _slow_down(decision.route, wait, decision.principal) if wait else decision


def _slow_down(route: Route | None, wait: float, principal: Principal | None = None) -> Denied:
    return Denied(Reason.TOO_MANY_FAILURES, "the address keeps failing", route, principal, retry_after=wait)


async def _arrived(answer: PendingAnswer) -> Answer:
    """Return what *answer* brings. Whoever is cancelled before it arrives here holds no slot."""
    try:
        return await answer
    except CancelledError:
        abandon(answer)
        raise
