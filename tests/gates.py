"""A gate with a fake key cache, limiter, token verifier and proof verifier, which return what a test prepared."""

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

from machpay_gateway.core.decision.credential import ApiKey, Proof, SignedToken
from machpay_gateway.core.decision.decision import Decision, Denied
from machpay_gateway.core.decision.failures import Failures
from machpay_gateway.core.decision.policy import Policy
from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.decision.restored_records import RestoredRecords
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.jose.ports import ProofVerifier, TokenVerifier
from machpay_gateway.core.jose.session import SessionToken
from machpay_gateway.core.keys.key import mint_secret, secret_digest
from machpay_gateway.core.limits.admission import AdmissionRequest, Admitted, Answer, Outage
from machpay_gateway.core.limits.load_shedder import LoadShedder
from machpay_gateway.core.limits.plan import tier_plan
from machpay_gateway.core.limits.ports import ChangedSubject
from machpay_gateway.core.limits.rate import TIERS
from machpay_gateway.core.network.address import parse_allowlist
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.gate import Gate, PendingAdmission, PendingIdentity
from tests.clocks import FixedClock

NOW = 1_700_000_000.0
SECRET = mint_secret("live", bytes(32)).encode()
DIGEST = secret_digest(SECRET)
JWT = b"eyJ.eyJ.sig"
THUMBPRINT = "thumbprint"
ADDRESS = 0xC0000201
ROUTES = (
    Route("GET /v1/skills", scopes="skills:list"),
    Route("GET /v1/keys", scopes="keys:manage"),
    Route("GET /healthz", public=True),
)


def principal(version: int = 1, *, environment: str = "live", revoked: bool = False) -> Principal:
    return Principal(
        kind="api_key",
        id="key_1",
        name="deploy",
        account_id="acct_1",
        subject="key_1",
        environment=environment,
        tier="standard",
        limits=TIERS["standard"],
        scopes=Scopes(frozenset({"skills:list"})),
        version=version,
        revoked=revoked,
        allowlist=parse_allowlist(["192.0.2.0/24"]),
    )


def oauth_principal(version: int = 1, *, key: str | None = None) -> Principal:
    """Return a caller with an access token; its ids all differ, so that a mix-up of two of them shows."""
    return replace(
        principal(version), kind="oauth", id="user_1", subject="grant_1", client_id="client_1", key=key, allowlist=None
    )


class Slot:
    """A lease that counts how often it was released."""

    releases = 0

    def release(self) -> None:
        self.releases += 1

    def charge(self, units: int) -> None:
        raise AssertionError(units)


ADMITTED = Admitted(Slot(), (9, 1.0, 4), tier_plan(TIERS["standard"]))


@dataclass
class Keys:
    """A key cache: what is *fresh*, what each look-up *finds*, which digests are *held*, and which calls were made."""

    fresh: dict[bytes, Principal] = field(default_factory=dict)
    finds: deque[Principal | Exception | None] = field(default_factory=deque)
    held: set[bytes] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)

    def cached(self, digest: bytes, now: float) -> Principal | None:
        assert now == NOW
        return self.fresh.get(digest)

    def holds(self, digest: bytes) -> bool:
        return digest in self.held

    async def find(self, presented: ApiKey | SessionToken) -> Principal | None:
        assert presented == ApiKey("live", DIGEST)
        self.calls.append("find")
        result = self.finds.popleft()
        if isinstance(result, Exception):
            raise result
        return result

    def forget(self, key_id: str) -> None:
        assert key_id == "key_1"
        self.calls.append("forget")
        self.fresh.clear()

    def forget_signed_by(self, kids: Collection[str]) -> None:
        raise AssertionError(kids)


@dataclass
class Limits:
    """A limiter: its next answer without I/O (None: the answer is pending), then its pending *answers* in order."""

    immediate: Answer | None = None
    answers: deque[Answer] = field(default_factory=deque)
    requests: list[AdmissionRequest] = field(default_factory=list)
    is_degraded: bool = False
    outage: Outage | None = None
    clock_skew_seconds: float | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    batches: Mapping[int, int] = field(default_factory=dict)
    lowered: list[AdmissionRequest] = field(default_factory=list)

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def give_way(self) -> None: ...

    def admit(self, demand: AdmissionRequest) -> Answer | asyncio.Future[Answer]:
        self.requests.append(demand)
        immediate, self.immediate = self.immediate, None
        if immediate is not None:
            return immediate
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        loop.call_soon(answer.set_result, self.answers.popleft())
        return answer

    async def remaining(self, demand: AdmissionRequest) -> NoReturn:
        raise AssertionError(demand)

    async def invalidate(self, changed: Sequence[ChangedSubject]) -> None:
        raise AssertionError(changed)

    def forget_versions(self) -> None: ...

    async def lower_version(self, request: AdmissionRequest) -> None:
        self.lowered.append(request)
        await asyncio.sleep(0)  # others go on until the reply


@dataclass
class Tokens:
    """A token verifier that has one token, JWT: what `verify` returns, and in turn after each `forget`."""

    verified: Principal | str | Exception
    fresh: Principal | None = None
    was_good: bool = False
    next_verified: deque[Principal | str | Exception] = field(default_factory=deque)
    calls: list[str] = field(default_factory=list)

    def cached(self, digest: bytes, now: float) -> Principal | None:
        assert now == NOW
        return self.fresh if digest == secret_digest(JWT) else None

    def holds(self, digest: bytes) -> bool:
        return self.was_good and digest == secret_digest(JWT)

    def forget(self, subject: str) -> None:
        self.calls.append(f"forget {subject}")
        self.fresh = None
        if self.next_verified:
            self.verified = self.next_verified.popleft()

    def may_verify(self, token: SignedToken) -> bool:
        return token.token == JWT

    async def verify(self, token: SignedToken, now: float) -> Principal | str:
        assert (token.token, now) == (JWT, NOW)
        self.calls.append("verify")
        if isinstance(self.verified, Exception):
            raise self.verified
        return self.verified

    async def close(self) -> None: ...


@dataclass
class Proofs:
    """A proof verifier that accepts the proof b"proof" for JWT and THUMBPRINT, once."""

    uses: list[Proof] = field(default_factory=list)

    def at_api(self, values: tuple[bytes, ...], method: str, path: str, token: bytes, key: str) -> Proof | str:
        assert (method, path, token, key) == ("GET", "/v1/skills", JWT, THUMBPRINT)
        return Proof(key, "proof-1") if values == (b"proof",) else "proof: not one"

    async def is_first_use(self, proof: Proof) -> bool:
        self.uses.append(proof)
        return len(self.uses) == 1


@dataclass
class Setup:
    keys: Keys = field(default_factory=Keys)
    limits: Limits = field(default_factory=Limits)
    tokens: TokenVerifier | None = None
    proofs: ProofVerifier | None = None
    failures: Failures = field(default_factory=lambda: Failures(3, 60))
    monotonic: FixedClock = field(default_factory=lambda: FixedClock(0))
    set_back: list[int] = field(default_factory=list)
    restored: RestoredRecords = field(init=False)
    shedder: LoadShedder = field(default_factory=LoadShedder)

    def __post_init__(self) -> None:
        self.restored = RestoredRecords(self.set_back.append, clock=self.monotonic)

    @property
    def gate(self) -> Gate:
        return Gate(
            Policy(ROUTES, unlisted="deny"),
            keys=self.keys,
            tokens=self.tokens,
            limiter=self.limits,
            failures=self.failures,
            restored=self.restored,
            shedder=self.shedder,
            proofs=self.proofs,
            clock=FixedClock(NOW),
        )

    async def decide(self, token: bytes = SECRET, path: str = "/v1/skills", address: int | None = ADDRESS) -> Decision:
        return await self.gate.decide(facts(b"Bearer " + token, path=path, address=address))


def setup(
    *,
    fresh: Principal | None = None,
    finds: Iterable[Principal | Exception | None] = (),
    answers: Iterable[Answer] = (),
) -> Setup:
    keys = Keys({DIGEST: fresh} if fresh else {}, deque(finds))
    return Setup(keys, Limits(answers=deque(answers)))


def facts(*authorization: bytes, path: str | None = "/v1/skills", address: int | None = ADDRESS) -> RequestFacts:
    return RequestFacts("GET", path, authorization, address, b"id")


def reason_of(decision: Decision | PendingAdmission | PendingIdentity) -> Reason:
    assert isinstance(decision, Denied), decision
    return decision.reason
