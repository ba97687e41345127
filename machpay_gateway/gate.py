"""The gate: the order of I/O in a decision, and the failure policy.

`decide_nowait` is the whole decision when nothing has to be fetched, which is nearly always; it needs no task and no
await. Otherwise it returns a pending decision: a `PendingAdmission` waits for the limiter, a `PendingIdentity` for a
look-up of the credential. `decide` awaits both. No other module decides to fail open or closed.
"""

import time
from asyncio import CancelledError
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import NamedTuple

from machpay_gateway.core.brand import MACHPAY, Brand
from machpay_gateway.core.decision.credential import (
    ApiKey,
    BoundToken,
    CustomCredential,
    Proof,
    SignedToken,
    Unreadable,
    credential_of,
    custom_credential_of,
    parse_authorization,
)
from machpay_gateway.core.decision.decision import (
    Allowed,
    CheckCache,
    Decision,
    Denied,
    Refusal,
    admit,
    conclude,
    unavailable,
)
from machpay_gateway.core.decision.failures import Failures
from machpay_gateway.core.decision.policy import Policy
from machpay_gateway.core.decision.principal import ANONYMOUS, Anonymous, Principal
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.decision.restored_records import RestoredRecords
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import Unavailable
from machpay_gateway.core.jose.ports import CredentialIdentifier, KeyPrincipals, ProofVerifier, TokenVerifier
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
from machpay_gateway.core.limits.load_shedder import LoadShedder
from machpay_gateway.core.limits.ports import Limiter
from machpay_gateway.hooks import PENDING, CheckHooks, Pending

_LOOKUPS = 10  # times the failure limit: how many look-ups may fail for an address that is over the failure limit
_ATTEMPTS = 2  # a stale record is loaded again once; no caller makes it change faster than that
_ANSWERS = Admitted, Exceeded, LimiterUnavailable, Stale
_PROOF_MISMATCH = "a bound token without the DPoP scheme, or the DPoP scheme with a token that is not bound"
_new = tuple.__new__  # half the cost of a NamedTuple's own constructor, on every request


@dataclass(frozen=True, slots=True)
class PendingIdentity:
    """A decision that waits for a look-up of the credential.

    *is_counted*: the failure is counted in advance, and forgiven when there is none. *is_bound*: the token has to come
    with a proof of its key. *is_throttled*: the address is over the failure limit, so only a good credential passes.
    *refused_for* is why even that is refused, before the limiter is asked.
    """

    facts: RequestFacts
    route: Route
    token: bytes
    is_counted: bool = False
    is_bound: bool = False
    is_throttled: bool = False
    refused_for: Refusal | None = None

    def __repr__(self) -> str:
        return f"PendingIdentity({self.route.match!r})"  # never the token


class PendingAdmission(NamedTuple):
    """A decision that waits for the limiter's *answer* alone. A tuple, because one may be made for each request."""

    answer: PendingAnswer
    principal: Principal | Anonymous
    facts: RequestFacts
    route: Route
    token: bytes

    def __repr__(self) -> str:
        return f"PendingAdmission({self.route.match!r})"  # never the token


class Gate:
    """Makes every decision, for all fronts. It holds no state of a request."""

    def __init__(  # noqa: PLR0913 - what a decision needs, each a component of its own
        self,
        policy: Policy,
        *,
        keys: KeyPrincipals,
        tokens: TokenVerifier | None,
        limiter: Limiter,
        failures: Failures,
        restored: RestoredRecords,
        shedder: LoadShedder,
        proofs: ProofVerifier | None = None,
        identifier: CredentialIdentifier | None = None,
        hooks: CheckHooks | None = None,
        brand: Brand = MACHPAY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Decide by *policy*. *clock* is in seconds since the epoch.

        An *identifier* of the application's credentials verifies tokens instead of *tokens*.
        """
        self.policy = policy
        self._literal = policy.literal
        self.limiter = limiter
        self._keys = keys
        self._tokens: TokenVerifier | None = tokens if identifier is None else identifier
        self._identifier = identifier
        self.hooks = hooks
        self._brand = brand
        self._failures = failures
        self._lookups = failures.scaled(_LOOKUPS)
        self._proofs = proofs
        self._checks = CheckCache()
        self._restored = restored
        self._shedder = shedder
        self._clock = clock

    def with_policy(self, policy: Policy) -> "Gate":
        """Return a gate that decides by *policy*, with the same caches, limits and failures."""
        return Gate(
            policy,
            keys=self._keys,
            tokens=self._tokens,
            limiter=self.limiter,
            failures=self._failures,
            proofs=self._proofs,
            restored=self._restored,
            shedder=self._shedder,
            identifier=self._identifier,
            hooks=self.hooks,
            brand=self._brand,
            clock=self._clock,
        )

    async def decide(self, facts: RequestFacts) -> Decision:
        """Return whether the request is allowed, and for which principal."""
        decision = self.decide_nowait(facts)
        if isinstance(decision, PendingAdmission):
            decision = self.apply_answer(decision, await _wait_for(decision.answer))
        return await self.resolve(decision) if isinstance(decision, PendingIdentity) else decision

    def decide_nowait(self, facts: RequestFacts) -> Decision | PendingAdmission | PendingIdentity:  # noqa: C901 - one straight line
        """Return the decision if it needs no I/O, else what it waits for."""
        method, path, authorization, _, _, preflight_for, _ = facts
        route = self._literal.get((method, path))
        if route is None or preflight_for is not None:
            match = self.policy.route_for(facts)
            if not isinstance(match, Route):
                return Denied(match, "no route matches" if match is Reason.ROUTE_NOT_FOUND else "ambiguous path")
            route = match
        if route.public:
            return self._decide_public(facts, route)
        token = parse_authorization(authorization)
        if not isinstance(token, bytes):
            return self._without_bearer(facts, route, token)
        now = self._clock()
        digest = sha256(token).digest()
        principal = self._keys.cached(digest, now)
        if principal is None and self._tokens is not None:
            principal = self._tokens.cached(digest, now)
        if principal is None or principal.key is not None:
            return self._before_lookup(facts, route, token, digest, now)
        request: AdmissionRequest | Denied | Pending = self._checks.admission_request(facts, route, principal, now)
        if self.hooks is not None and isinstance(request, AdmissionRequest):
            request = self.hooks.check_nowait(facts, route, principal, now) or request
        if not isinstance(request, AdmissionRequest):
            return PendingIdentity(facts, route, token) if request is PENDING else self._count_failure(facts, request)
        if self._shedder.is_shedding and not self._shedder.admits(request.group):
            return _shed(route, principal)
        answer = self.limiter.admit(request)
        if isinstance(answer, Admitted):  # nearly always; a call of `conclude` would cost 2 % of the decision
            return _new(Allowed, (principal, answer, route))
        pending = _new(PendingAdmission, (answer, principal, facts, route, token))
        return self.apply_answer(pending, answer) if isinstance(answer, _ANSWERS) else pending

    def _decide_public(self, facts: RequestFacts, route: Route) -> Decision | PendingAdmission:
        request = self.policy.anonymous_request(route, facts.address)
        if request is None:
            return _new(Allowed, (ANONYMOUS, None, route))
        if self._shedder.is_shedding and not self._shedder.admits(request.group):
            return _shed(route)
        answer = self.limiter.admit(request)
        if not isinstance(answer, _ANSWERS):
            return PendingAdmission(answer, ANONYMOUS, facts, route, b"")
        return _conclude_public(route, answer)

    async def refuse(self, facts: RequestFacts, route: Route, reason: Reason, detail: str) -> Denied:
        """Return the refusal of a request that is refused for *reason*, unless its credential is one. It takes nothing.

        So nobody learns more of *route* than without that reason, and a bad credential is counted as ever.
        """
        if route.public:
            return Denied(reason, detail, route)
        token = parse_authorization(facts.authorization)
        if isinstance(token, bytes):
            digest = sha256(token).digest()
            pending = self._before_lookup(facts, route, token, digest, self._clock())
        else:
            pending = self._without_bearer(facts, route, token)
        if isinstance(pending, PendingIdentity):
            pending = await self.resolve(replace(pending, refused_for=Refusal(reason, detail)))
        return pending if isinstance(pending, Denied) else unavailable(route, "a request to refuse was allowed")

    def apply_answer(self, pending: PendingAdmission, answer: Answer) -> Decision | PendingIdentity:
        """Return the decision of *pending* by the limiter's *answer*; a stale principal has to be looked up again."""
        _, principal, facts, route, token = pending
        if isinstance(principal, Anonymous):
            return _conclude_public(route, answer)
        if answer is STALE:
            self._forget(principal)
            return PendingIdentity(facts, route, token)
        return conclude(route, principal, answer)

    async def resolve(self, pending: PendingIdentity) -> Decision:
        """Return the decision of *pending*, after the I/O that it needs, and count a bad credential."""
        try:
            decision = await self._resolve(pending)
        except Unavailable as exc:
            decision = unavailable(pending.route, f"unavailable: {exc}")
        if not pending.is_counted:
            return self._count_failure(pending.facts, decision)
        failures = self._lookups if pending.is_throttled else self._failures
        address, now = pending.facts.address, self._clock()
        if not (isinstance(decision, Denied) and decision.reason is Reason.INVALID_CREDENTIALS):
            failures.forgive(address, now)
            return decision
        if pending.is_throttled:
            return _too_many_failures(decision.route, self._failures.wait(address, now), decision.principal)
        return decision

    async def is_still_allowed(self, facts: RequestFacts, route: Route) -> bool:
        """Tell whether a request in progress would still be allowed if it began now."""
        return await self.recheck(facts, route) is None

    async def recheck(self, facts: RequestFacts, route: Route) -> Denied | None:
        """Return why a request in progress would be refused if it began now, else None. No quota is spent.

        It fails open: an outage of the key store does not end every stream.
        """
        token = parse_authorization(facts.authorization)
        token = token.token if isinstance(token, BoundToken) else token  # its proof was checked when it began
        if not isinstance(token, bytes):
            return Denied(Reason.INVALID_CREDENTIALS, "no credential", route)
        try:
            principal: Principal | str = self._cached(token) or await self._identify(token)
        except Unavailable:
            return None
        if isinstance(principal, str):
            return Denied(Reason.INVALID_CREDENTIALS, principal, route)
        if denied := admit(facts, route, principal, self._clock()):
            return denied
        return None if self.hooks is None else await self.hooks.recheck(facts, route, principal, self._clock())

    def _without_bearer(
        self, facts: RequestFacts, route: Route, token: BoundToken | Unreadable
    ) -> Decision | PendingIdentity:
        """Refuse what is no credential; have a bound token looked up even if it is cached: each proof is good once."""
        if isinstance(token, Unreadable):
            return Denied(token.reason, token.detail, route)
        if self._proofs is None:
            return Denied(Reason.MISSING_CREDENTIALS, "unsupported authentication scheme", route)
        return self._before_lookup(
            facts, route, token.token, sha256(token.token).digest(), self._clock(), is_bound=True
        )

    def _before_lookup(
        self,
        facts: RequestFacts,
        route: Route,
        token: bytes,
        digest: bytes,
        now: float,
        *,
        is_bound: bool = False,
    ) -> Decision | PendingIdentity:
        """Refuse without I/O what cannot be a credential, and limit the look-ups of an address that keeps failing."""
        # A credential in recent use stays usable: strangers behind the same address cannot lock it out.
        if self._keys.holds(digest) or (self._tokens is not None and self._tokens.holds(digest)):
            return PendingIdentity(facts, route, token, is_bound=is_bound)
        credential = self._credential_of(token)
        if wait := self._failures.wait(facts.address, now):
            if not self._may_be_good(credential) or self._lookups.count(facts.address, now):
                return _too_many_failures(route, wait)
            # Many callers may share the address: good credentials pass, and failed look-ups have a limit of their own.
            return PendingIdentity(facts, route, token, is_counted=True, is_bound=is_bound, is_throttled=True)
        if isinstance(credential, Unreadable):
            return self._count_failure(facts, Denied(credential.reason, credential.detail, route))
        # Counted before the look-up and forgiven after a good one, so that concurrent guesses count one by one.
        self._failures.count(facts.address, now)
        return PendingIdentity(facts, route, token, is_counted=True, is_bound=is_bound)

    def _credential_of(self, token: bytes) -> ApiKey | SignedToken | CustomCredential | Unreadable:
        if self._identifier is not None:
            return custom_credential_of(token, self._brand)
        return credential_of(token, self._brand)

    def _may_be_good(self, credential: ApiKey | SignedToken | CustomCredential | Unreadable) -> bool:
        """Tell whether a look-up could accept *credential*: its checksum is right, or its issuer is accepted."""
        if isinstance(credential, SignedToken):
            return self._tokens is not None and self._tokens.may_verify(credential)
        return not isinstance(credential, Unreadable)

    async def _resolve(self, pending: PendingIdentity) -> Decision:
        """Look the credential up and decide; load the record once more if it changed between the two."""
        route, token = pending.route, pending.token
        proof: Proof | None = None
        is_proved = False
        for attempt in range(1, _ATTEMPTS + 1):
            principal: Principal | str = self._cached(token) or await self._identify(token)
            if isinstance(principal, str):
                return Denied(Reason.INVALID_CREDENTIALS, principal, route)
            if pending.is_bound or principal.key is not None:
                result = self._verify_proof(pending, principal)
                if isinstance(result, Denied):
                    return result
                proof = result
            request = await self._admission_request(pending, principal)
            if isinstance(request, Denied):
                return request
            # RFC 9449 §11.1: a proof is good once. It is recorded last, so that a refused request leaves no trace.
            if proof is not None and not is_proved:
                if self._proofs is None or not await self._proofs.is_first_use(proof):
                    return Denied(Reason.INVALID_PROOF, "proof: seen before", route, principal)
                is_proved = True
            answer = await _answer_to(self.limiter.admit(request))
            if answer is STALE and attempt == _ATTEMPTS and self._restored.is_certain(request):
                await self.limiter.lower_version(request)
                self._restored.accept(request.subject)
                answer = await _answer_to(self.limiter.admit(request))
            if answer is not STALE:
                self._restored.clear(principal.subject)
                return conclude(route, principal, answer)
            self._forget(principal)
        return unavailable(route, "the record keeps changing")

    async def _admission_request(self, pending: PendingIdentity, principal: Principal) -> AdmissionRequest | Denied:
        request = self._checks.admission_request(pending.facts, pending.route, principal, self._clock())
        if isinstance(request, Denied):
            return request
        if self._shedder.is_shedding and not self._shedder.admits(request.group):
            return _shed(pending.route, principal)
        if pending.refused_for is not None:
            return Denied(pending.refused_for.reason, pending.refused_for.detail, pending.route, principal)
        if self.hooks is None:
            return request
        return await self.hooks.check(pending.facts, pending.route, principal, self._clock()) or request

    def _verify_proof(self, pending: PendingIdentity, principal: Principal) -> Proof | Denied:
        """Return the proof that the sender has the token's key, used before or not, or why there is none."""
        if not pending.is_bound or principal.key is None or self._proofs is None:
            # RFC 9449 §7.2: a bound token without its proof may be stolen. The DPoP scheme with another token
            # is a client's mistake.
            return Denied(Reason.INVALID_CREDENTIALS, _PROOF_MISMATCH, pending.route, principal)
        facts = pending.facts
        proof = self._proofs.at_api(facts.proof, facts.method, facts.path or "", pending.token, principal.key)
        return Denied(Reason.INVALID_PROOF, proof, pending.route, principal) if isinstance(proof, str) else proof

    def _cached(self, token: bytes) -> Principal | None:
        """Return the principal of *token* if that needs no I/O, as for nearly all streams in progress."""
        now, digest = self._clock(), sha256(token).digest()
        principal = self._keys.cached(digest, now)
        if principal is None and self._tokens is not None:
            principal = self._tokens.cached(digest, now)
        return principal

    async def _identify(self, token: bytes) -> Principal | str:
        """Return the principal of *token*, or why, for the log, there is none."""
        match self._credential_of(token):
            case ApiKey() as key:
                return await self._keys.find(key) or "unknown key"
            case SignedToken() as signed if self._tokens is not None:
                return await self._tokens.verify(signed, self._clock())
            case CustomCredential() as custom if self._identifier is not None:
                return await self._identifier.identify(custom, self._clock())
        return "signed tokens are not accepted here"

    def _forget(self, principal: Principal) -> None:
        """Drop the cached record of *principal*: the limiter has a later version."""
        if principal.kind == "oauth" and self._tokens is not None:
            self._tokens.forget(principal.subject)
        else:
            self._keys.forget(principal.subject)

    def _count_failure(self, facts: RequestFacts, decision: Decision) -> Decision:
        """Count a bad credential against its address, and return *decision*, or the refusal of too many failures."""
        if not isinstance(decision, Denied) or decision.reason is not Reason.INVALID_CREDENTIALS:
            return decision
        wait = self._failures.count(facts.address, self._clock())
        return _too_many_failures(decision.route, wait, decision.principal) if wait else decision


def _conclude_public(route: Route, answer: Answer) -> Decision:
    if answer is STALE:  # nothing invalidates an address
        return unavailable(route, "the limits of an address changed")
    return conclude(route, ANONYMOUS, answer)


def _shed(route: Route, principal: Principal | None = None) -> Denied:
    return unavailable(route, "this worker is overloaded, and the account has more than its share of it", principal)


def _too_many_failures(route: Route | None, wait: float, principal: Principal | None = None) -> Denied:
    return Denied(Reason.TOO_MANY_FAILURES, "the address keeps failing", route, principal, retry_after=wait)


async def _answer_to(answer: Answer | PendingAnswer) -> Answer:
    return answer if isinstance(answer, _ANSWERS) else await _wait_for(answer)


async def _wait_for(answer: PendingAnswer) -> Answer:
    """Return the result of *answer*. A caller that is canceled first holds no slot."""
    try:
        return await answer
    except CancelledError:
        abandon(answer)
        raise
