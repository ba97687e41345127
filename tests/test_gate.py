import asyncio
from collections import deque
from dataclasses import replace

import pytest

from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.decision.credential import Proof
from machpay_gateway.core.decision.decision import Allowed, Decision, Denied
from machpay_gateway.core.decision.failures import Failures
from machpay_gateway.core.decision.policy import PREFLIGHT, Policy
from machpay_gateway.core.decision.principal import ANONYMOUS, Principal
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.decision.restored_records import RestoredRecords
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import KeysetUnavailable, StoreUnavailable
from machpay_gateway.core.keys.key import KeyRecord, SecretRecord, mint_secret, secret_digest
from machpay_gateway.core.limits.admission import STALE, AdmissionRequest, Answer, Exceeded, LimiterUnavailable
from machpay_gateway.core.limits.load_shedder import LoadShedder
from machpay_gateway.core.limits.plan import tier_plan
from machpay_gateway.core.limits.rate import TIERS
from machpay_gateway.core.network.address import parse_allowlist
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.gate import Gate, PendingAdmission, PendingIdentity
from machpay_gateway.limiters.memory import MemoryLimiter
from machpay_gateway.stores.cache import KeyCache
from machpay_gateway.stores.change_poller import ChangePoller
from machpay_gateway.stores.sql import SqlStore
from tests.clocks import FixedClock
from tests.gates import (
    ADDRESS,
    ADMITTED,
    DIGEST,
    JWT,
    NOW,
    ROUTES,
    SECRET,
    THUMBPRINT,
    Proofs,
    Setup,
    Slot,
    Tokens,
    facts,
    oauth_principal,
    principal,
    reason_of,
    setup,
)
from tests.keyrings import logged

DOWN = LimiterUnavailable("no reply")


@pytest.mark.parametrize(
    "request_facts, reason",
    [
        (facts(), Reason.MISSING_CREDENTIALS),
        (facts(b""), Reason.MISSING_CREDENTIALS),
        (facts(b"Basic dXNlcjpwYXNz"), Reason.MISSING_CREDENTIALS),
        (facts(b"Bearer " + SECRET, b"Bearer " + SECRET), Reason.MALFORMED_REQUEST),
        (facts(b"Bearer"), Reason.MALFORMED_REQUEST),
        (facts(b"Bearer a b"), Reason.MALFORMED_REQUEST),
        (facts(b"Bearer " + b"A" * 20_000), Reason.MALFORMED_REQUEST),
        (facts(b"Bearer abc"), Reason.INVALID_CREDENTIALS),
        (facts(b"Bearer " + SECRET[:-1] + b"!"), Reason.MALFORMED_REQUEST),
        (facts(b"Bearer " + SECRET[:-1]), Reason.INVALID_CREDENTIALS),
        (facts(b"Bearer " + SECRET.replace(b"live", b"test")), Reason.INVALID_CREDENTIALS),
        (facts(b"Bearer " + SECRET, path=None), Reason.MALFORMED_REQUEST),
        (facts(b"Bearer " + SECRET, path="/nowhere"), Reason.ROUTE_NOT_FOUND),
        (facts(path="/nowhere"), Reason.ROUTE_NOT_FOUND),  # told apart before credentials: the policy is no secret
    ],
)
async def test_a_malformed_request_is_refused_without_io(request_facts: RequestFacts, reason: Reason) -> None:
    rig = setup()  # any load and any answer of a limiter would fail
    assert reason_of(rig.gate.decide_nowait(request_facts)) is reason
    assert not rig.keys.calls
    assert not rig.limits.requests


def test_a_preflight_needs_no_credential_where_another_path_lists_options() -> None:
    routes = (Route("* /v1/skills", scopes="skills:list"), Route("OPTIONS /v1/other"))
    rig = setup()
    gate = Gate(
        Policy(routes),
        keys=rig.keys,
        tokens=None,
        limiter=rig.limits,
        failures=rig.failures,
        restored=rig.restored,
        shedder=rig.shedder,
        clock=FixedClock(NOW),
    )
    preflight = RequestFacts("OPTIONS", "/v1/skills", (), ADDRESS, b"id", preflight_for="GET")
    assert gate.decide_nowait(preflight) == Allowed(ANONYMOUS, None, PREFLIGHT)
    assert reason_of(gate.decide_nowait(preflight._replace(preflight_for=None))) is Reason.MISSING_CREDENTIALS


@pytest.mark.parametrize("authorization", [(), (b"Bearer " + SECRET,), (b"Bearer junk",), (b"a", b"b"), (b"\xff",)])
async def test_a_public_route_ignores_credentials(authorization: tuple[bytes, ...]) -> None:
    rig = setup()
    assert rig.gate.decide_nowait(facts(*authorization, path="/healthz")) == Allowed(ANONYMOUS, None, ROUTES[2])


def test_a_cached_key_is_decided_without_io() -> None:
    caller = principal()
    rig = setup(fresh=caller)
    rig.limits.immediate = ADMITTED
    assert rig.gate.decide_nowait(facts(b"Bearer " + SECRET)) == Allowed(caller, ADMITTED, ROUTES[0])
    assert rig.keys.calls == []
    assert rig.limits.requests == [AdmissionRequest("key_1", 1, tier_plan(TIERS["standard"]), 1, group="acct_1")]


async def test_a_key_that_is_not_cached_is_looked_up_and_limited() -> None:
    caller = principal()
    rig = setup(finds=[caller], answers=[ADMITTED])
    assert await rig.decide() == Allowed(caller, ADMITTED, ROUTES[0])
    assert rig.keys.calls == ["find"]


async def test_a_pending_admission_needs_no_second_lookup_of_the_key() -> None:
    rig = setup(fresh=principal(), answers=[ADMITTED])
    assert isinstance(await rig.decide(), Allowed)
    assert rig.keys.calls == []


async def test_a_refusal_by_the_limiter_is_the_decision() -> None:
    exceeded = Exceeded(("minute",), wait_seconds=3.0, levels=(2, 1.0, 1), plan=tier_plan(TIERS["standard"]))
    decision = await setup(finds=[principal()], answers=[exceeded]).decide()
    assert isinstance(decision, Denied)
    assert (decision.reason, decision.exceeded, decision.retry_after) == (Reason.RATE_LIMITED, exceeded, 3.0)


@pytest.mark.parametrize("is_cached", [True, False])
@pytest.mark.parametrize(
    "path, caller, address, reason",
    [
        ("/v1/keys", principal(), ADDRESS, Reason.INSUFFICIENT_SCOPE),
        ("/v1/skills", principal(), 7, Reason.ADDRESS_NOT_ALLOWED),
        ("/v1/skills", principal(), None, Reason.ADDRESS_NOT_ALLOWED),
        ("/v1/skills", principal(revoked=True), ADDRESS, Reason.INVALID_CREDENTIALS),
    ],
)
async def test_a_request_refused_by_a_check_spends_no_quota(
    path: str, caller: Principal, address: int | None, reason: Reason, *, is_cached: bool
) -> None:
    rig = setup(fresh=caller) if is_cached else setup(finds=[caller])
    assert reason_of(await rig.decide(path=path, address=address)) is reason
    assert rig.limits.requests == []


async def test_an_unknown_key_is_refused_like_a_revoked_one() -> None:
    unknown = await setup(finds=[None]).decide()
    revoked = await setup(finds=[principal(revoked=True)]).decide()
    assert reason_of(unknown) is reason_of(revoked) is Reason.INVALID_CREDENTIALS


@pytest.mark.parametrize(
    "rig",
    [
        setup(finds=[StoreUnavailable("key lookup")]),
        setup(finds=[principal()], answers=[DOWN]),
        setup(fresh=principal(), answers=[DOWN]),
    ],
    ids=["store", "limiter", "limiter of a known key"],
)
async def test_an_outage_is_unavailable_and_counts_as_no_failure(rig: Setup) -> None:
    decision = await rig.decide()
    assert isinstance(decision, Denied)
    assert (decision.reason, decision.retry_after) == (Reason.UNAVAILABLE, 1.0)
    assert len(rig.failures) == 0


async def test_an_unexpected_exception_is_not_swallowed() -> None:
    with pytest.raises(RuntimeError):
        await setup(finds=[RuntimeError()]).decide()


@pytest.mark.parametrize("is_cached", [True, False])
async def test_a_request_canceled_after_its_admission_releases_the_slot(*, is_cached: bool) -> None:
    caller, lease = principal(), Slot()
    admitted = ADMITTED._replace(lease=lease)
    rig = setup(fresh=caller, answers=[admitted]) if is_cached else setup(finds=[caller], answers=[admitted])
    deciding = asyncio.create_task(rig.decide())
    await asyncio.sleep(0)
    assert rig.limits.requests
    # Answered by what runs in the next turn before this; the task that waits runs after it.
    asyncio.get_running_loop().call_soon(deciding.cancel)
    with pytest.raises(asyncio.CancelledError):
        await deciding
    assert lease.releases == 1


async def test_a_stale_record_is_loaded_again_and_decided_once_more() -> None:
    rig = setup(finds=[principal(1), principal(2)], answers=[STALE, ADMITTED])
    decision = await rig.decide()
    assert isinstance(decision, Allowed)
    assert [request.version for request in rig.limits.requests] == [1, 2]
    assert rig.keys.calls == ["find", "forget", "find"]


async def test_a_cached_record_that_is_stale_is_loaded_again() -> None:
    rig = setup(fresh=principal(1), finds=[principal(2)], answers=[ADMITTED])
    rig.limits.immediate = STALE
    assert isinstance(await rig.decide(), Allowed)
    assert [request.version for request in rig.limits.requests] == [1, 2]
    assert rig.keys.calls == ["forget", "find"]


async def test_a_stale_record_that_was_revoked_is_refused() -> None:
    rig = setup(finds=[principal(1), principal(2, revoked=True)], answers=[STALE])
    assert reason_of(await rig.decide()) is Reason.INVALID_CREDENTIALS


@pytest.mark.parametrize("is_cached", [True, False])
async def test_a_stale_oauth_grant_is_loaded_again_by_the_token_verifier(*, is_cached: bool) -> None:
    before, after = oauth_principal(1), oauth_principal(2)
    rig = setup(answers=[STALE, ADMITTED])
    rig.tokens = tokens = Tokens(before, fresh=before if is_cached else None, next_verified=deque([after]))
    assert await rig.decide(JWT) == Allowed(after, ADMITTED, ROUTES[0])
    assert [(request.subject, request.version) for request in rig.limits.requests] == [("grant_1", 1), ("grant_1", 2)]
    assert tokens.calls == (["forget grant_1", "verify"] if is_cached else ["verify", "forget grant_1", "verify"])
    assert rig.keys.calls == []


async def test_a_cached_oauth_grant_that_is_stale_without_io_is_loaded_again() -> None:
    rig = setup(answers=[ADMITTED])
    rig.limits.immediate = STALE
    rig.tokens = tokens = Tokens(oauth_principal(2), fresh=oauth_principal(1))
    assert isinstance(await rig.decide(JWT), Allowed)
    assert tokens.calls == ["forget grant_1", "verify"]


async def test_a_record_that_keeps_changing_is_unavailable_after_two_attempts() -> None:
    rig = setup(finds=[principal(n) for n in range(2)], answers=[STALE] * 2)
    decision = await rig.decide()
    assert isinstance(decision, Denied)
    assert (decision.reason, decision.retry_after) == (Reason.UNAVAILABLE, 1.0)
    assert rig.keys.calls == ["find", "forget"] * 2


async def behind(rig: Setup, version: int = 1) -> Decision:
    """Decide with a record whose version the limiter takes for an old one, as often as it is read."""
    rig.keys.finds.extend([principal(version)] * 2)
    rig.limits.answers.extend([STALE] * 2)
    return await rig.decide()


async def test_a_record_that_stays_behind_its_marker_was_restored_and_is_believed() -> None:
    rig = setup()
    for seconds in (0.0, 1.5, 2.9):
        rig.monotonic.now = seconds
        assert reason_of(await behind(rig)) is Reason.UNAVAILABLE
    assert not rig.limits.lowered
    rig.monotonic.now = 3.0
    rig.keys.finds.extend([principal()] * 2)
    rig.limits.answers.extend([STALE, STALE, ADMITTED])
    assert isinstance(await rig.decide(), Allowed)
    assert [request.version for request in rig.limits.lowered] == [1]
    assert (rig.restored.count, rig.set_back) == (1, [1])


async def test_concurrent_requests_with_a_record_that_was_restored_are_all_admitted_and_count_it_once() -> None:
    rig = setup()
    await behind(rig)
    rig.monotonic.now = 3.0
    rig.keys.finds.extend([principal()] * 4)
    rig.limits.answers.extend([*[STALE] * 4, ADMITTED, ADMITTED])
    decisions = await asyncio.gather(rig.decide(), rig.decide())
    assert [type(decision) for decision in decisions] == [Allowed, Allowed]
    assert (rig.restored.count, rig.set_back) == (1, [1])


async def test_a_record_that_keeps_changing_is_not_one_that_was_restored() -> None:
    rig = setup()
    for seconds in range(20):
        rig.monotonic.now = float(seconds)
        assert reason_of(await behind(rig, version=seconds)) is Reason.UNAVAILABLE
    assert not rig.limits.lowered


async def test_a_record_that_was_behind_and_is_not_any_more_has_to_stay_behind_as_long_again() -> None:
    rig = setup()
    await behind(rig)
    rig.monotonic.now = 2.0
    rig.keys.finds.extend([principal()] * 2)
    rig.limits.answers.extend([STALE, ADMITTED])
    assert isinstance(await rig.decide(), Allowed)
    rig.monotonic.now = 4.0
    assert reason_of(await behind(rig)) is Reason.UNAVAILABLE
    assert not rig.limits.lowered


async def test_a_key_in_recent_use_is_not_locked_out_by_failures_of_its_address() -> None:
    caller = principal()
    rig = setup()
    rig.keys.held.add(DIGEST)  # cached, though not to be trusted before the store was asked for changes
    rig.keys.finds.append(caller)
    rig.limits.answers.append(ADMITTED)
    while reason_of(rig.gate.decide_nowait(facts(b"Bearer junk"))) is Reason.INVALID_CREDENTIALS:
        assert len(rig.keys.calls) == 0
    assert reason_of(rig.gate.decide_nowait(facts(b"Bearer junk"))) is Reason.TOO_MANY_FAILURES
    assert await rig.decide() == Allowed(caller, ADMITTED, ROUTES[0])


async def test_a_token_in_recent_use_is_not_locked_out_by_failures_of_its_address() -> None:
    caller = oauth_principal()
    rig = setup(answers=[ADMITTED])
    rig.tokens = Tokens(caller, was_good=True)
    for _ in range(100):  # more than failed look-ups of that address may be, too
        rig.gate.decide_nowait(facts(b"Bearer " + SECRET))
        rig.gate.decide_nowait(facts(b"Bearer junk"))
    assert reason_of(rig.gate.decide_nowait(facts(b"Bearer junk"))) is Reason.TOO_MANY_FAILURES
    assert rig.gate.decide_nowait(facts(b"Bearer " + JWT)) == PendingIdentity(
        facts(b"Bearer " + JWT), ROUTES[0], JWT, is_counted=False, is_throttled=False
    )
    assert await rig.decide(JWT) == Allowed(caller, ADMITTED, ROUTES[0])


@pytest.mark.parametrize("kind", ["key", "token"])
async def test_failures_of_a_credential_in_recent_use_are_counted(kind: str) -> None:
    rig = setup(finds=[None] * 4)
    rig.keys.held.add(DIGEST)
    rig.tokens = Tokens("revoked", was_good=True)
    outcomes = [reason_of(await rig.decide(SECRET if kind == "key" else JWT)) for _ in range(4)]
    assert outcomes == [Reason.INVALID_CREDENTIALS] * 3 + [Reason.TOO_MANY_FAILURES]


async def test_an_address_over_the_failure_limit_is_refused_without_a_lookup() -> None:
    rig = setup(finds=[None] * 3)
    assert [reason_of(await rig.decide()) for _ in range(3)] == [Reason.INVALID_CREDENTIALS] * 3
    for junk in (b"junk", SECRET[:-1], JWT):
        slowed = rig.gate.decide_nowait(facts(b"Bearer " + junk))  # a load would find the deque empty
        assert isinstance(slowed, Denied)
        assert slowed.reason is Reason.TOO_MANY_FAILURES
        assert slowed.retry_after == pytest.approx(20)


async def test_a_good_key_is_allowed_from_an_address_over_the_failure_limit() -> None:
    caller = principal()
    rig = setup(finds=[None, *[caller] * 40], answers=[ADMITTED] * 40)
    gate = rig.gate
    for _ in range(10):
        gate.decide_nowait(facts(b"Bearer junk"))
    assert reason_of(await gate.decide(facts(b"Bearer " + SECRET))) is Reason.TOO_MANY_FAILURES  # nobody's
    for _ in range(40):  # only failed look-ups are counted
        assert await gate.decide(facts(b"Bearer " + SECRET)) == Allowed(caller, ADMITTED, ROUTES[0])


async def test_a_good_token_is_allowed_from_an_address_over_the_failure_limit() -> None:
    caller = principal()
    rig = setup(answers=[ADMITTED])
    rig.tokens = Tokens(caller)
    gate = rig.gate
    for _ in range(10):
        gate.decide_nowait(facts(b"Bearer junk"))
    assert reason_of(gate.decide_nowait(facts(b"Bearer eyJ.eyJ.other"))) is Reason.TOO_MANY_FAILURES
    assert await gate.decide(facts(b"Bearer " + JWT)) == Allowed(caller, ADMITTED, ROUTES[0])


async def test_failed_lookups_of_an_address_over_the_failure_limit_are_bounded() -> None:
    rig = setup(finds=[None] * 100)
    gate = rig.gate
    outcomes = [reason_of(await gate.decide(facts(b"Bearer " + SECRET))) for _ in range(100)]
    assert outcomes == [Reason.INVALID_CREDENTIALS] * 3 + [Reason.TOO_MANY_FAILURES] * 97
    assert len(rig.keys.calls) == 3 + 30  # ten times as many again
    at_once = [gate.decide_nowait(facts(b"Bearer " + SECRET, address=7)) for _ in range(100)]
    assert sum(not isinstance(decision, Denied) for decision in at_once) == 3 + 30  # many at once are as many


async def test_an_outage_of_the_store_uses_up_no_lookups() -> None:
    rig = setup(finds=[StoreUnavailable("key lookup")] * 50)
    gate = rig.gate
    for _ in range(10):
        gate.decide_nowait(facts(b"Bearer junk"))
    outcomes = [reason_of(await gate.decide(facts(b"Bearer " + SECRET))) for _ in range(50)]
    assert outcomes == [Reason.UNAVAILABLE] * 50


async def test_only_bad_credentials_count_as_failures() -> None:
    rig = setup(fresh=principal(revoked=True), finds=[None])
    for token in (SECRET, b"neither", SECRET[:-1]):
        assert reason_of(await rig.decide(token)) is Reason.INVALID_CREDENTIALS
    assert reason_of(await rig.decide()) is Reason.TOO_MANY_FAILURES
    other = setup(fresh=principal())
    for authorization in ((), (b"Bearer a b",), (b"Basic x",)) * 3:
        other.gate.decide_nowait(facts(*authorization))
    for _ in range(5):
        await other.decide(path="/v1/keys")
    assert len(other.failures) == 0


async def test_a_cached_key_is_allowed_from_an_address_over_the_failure_limit() -> None:
    rig = setup(fresh=principal(), answers=[ADMITTED])
    for _ in range(10):
        await rig.decide(b"junk")
    assert reason_of(await rig.decide(b"junk")) is Reason.TOO_MANY_FAILURES
    assert isinstance(await rig.decide(), Allowed)


async def test_failures_of_one_address_do_not_count_for_others() -> None:
    rig = setup()
    for _ in range(10):
        await rig.decide(b"junk")
    assert reason_of(await rig.decide(b"junk", address=ADDRESS + 1)) is Reason.INVALID_CREDENTIALS
    assert [reason_of(await rig.decide(b"junk", address=None)) for _ in range(10)] == [Reason.INVALID_CREDENTIALS] * 10


async def test_signed_tokens_are_refused_without_a_configured_issuer() -> None:
    decision = await setup().decide(JWT)
    assert isinstance(decision, Denied)
    assert decision.reason is Reason.INVALID_CREDENTIALS
    assert decision.detail == "signed tokens are not accepted here"


async def test_a_signed_token_is_verified() -> None:
    caller = principal()
    rig = setup(answers=[ADMITTED])
    rig.tokens = Tokens(caller)
    assert await rig.decide(JWT) == Allowed(caller, ADMITTED, ROUTES[0])


async def test_a_cached_token_is_decided_without_io() -> None:
    caller = principal()
    rig = setup()
    rig.tokens = Tokens("must not be asked", fresh=caller)
    rig.limits.immediate = ADMITTED
    assert rig.gate.decide_nowait(facts(b"Bearer " + JWT)) == Allowed(caller, ADMITTED, ROUTES[0])


@pytest.mark.parametrize(
    "verified, reason, counted",
    [
        ("wrong signature", Reason.INVALID_CREDENTIALS, 1),
        (KeysetUnavailable("keys"), Reason.UNAVAILABLE, 0),
    ],
)
async def test_a_token_that_fails_verification_is_refused(
    verified: str | Exception, reason: Reason, counted: int
) -> None:
    rig = setup()
    rig.tokens = Tokens(verified)
    assert reason_of(await rig.decide(JWT)) is reason
    assert len(rig.failures) == counted


@pytest.mark.parametrize("prefix, environment", [("live", "test"), ("test", "live")])
async def test_a_secret_of_another_environment_than_its_record_is_always_refused(prefix: str, environment: str) -> None:
    clock, store = FixedClock(NOW), SqlStore("memory://")
    await store.add_account(Account("acct_1", "Acme", "standard", NOW), logged())
    secret = mint_secret(prefix, bytes(32)).encode()
    swapped = KeyRecord(
        id="key_1",
        account_id="acct_1",
        name="swapped",
        environment=environment,
        tier="standard",
        scopes=Scopes(frozenset({"skills:list"})),
        allowed_ips=(),
        created_at=NOW,
        secrets=(SecretRecord(secret_digest(secret), "…", NOW),),
    )
    await store.add_key(swapped, logged())
    gate = Gate(
        Policy(ROUTES),
        keys=KeyCache(store, TIERS, ChangePoller(store.changes_after, clock=clock), clock=clock),
        tokens=None,
        limiter=MemoryLimiter(clock),
        failures=Failures(100, 60),
        restored=RestoredRecords(lambda _: None, clock=clock),
        shedder=LoadShedder(),
        clock=clock,
    )
    decisions = [await gate.decide(facts(b"Bearer " + secret)) for _ in range(3)]
    assert [reason_of(decision) for decision in decisions] == [Reason.INVALID_CREDENTIALS] * 3


DPOP = RequestFacts("GET", "/v1/skills", (b"DPoP " + JWT,), ADDRESS, b"id", proof=(b"proof",))
BOUND = oauth_principal(key=THUMBPRINT)


def bound_setup(*answers: Answer, is_fresh: bool = False) -> tuple[Setup, Tokens, Proofs]:
    """Return a gate with one token, which is bound to a key."""
    rig = setup(answers=answers)
    rig.tokens = tokens = Tokens(BOUND, fresh=BOUND if is_fresh else None)
    rig.proofs = proofs = Proofs()
    return rig, tokens, proofs


@pytest.mark.parametrize("is_fresh", [True, False])
async def test_a_bound_token_is_allowed_with_a_proof_of_its_key_once(*, is_fresh: bool) -> None:
    rig, _, proofs = bound_setup(ADMITTED, ADMITTED, is_fresh=is_fresh)
    gate = rig.gate
    assert await gate.decide(DPOP) == Allowed(BOUND, ADMITTED, ROUTES[0])
    assert proofs.uses == [Proof(THUMBPRINT, "proof-1")]
    replayed = await gate.decide(DPOP)
    assert isinstance(replayed, Denied)
    assert (replayed.reason, replayed.detail) == (Reason.INVALID_PROOF, "proof: seen before")
    assert len(rig.limits.requests) == 1


async def test_a_proof_is_used_once_though_the_record_was_stale() -> None:
    rig, tokens, proofs = bound_setup(STALE, ADMITTED)
    tokens.next_verified.append(oauth_principal(2, key=THUMBPRINT))
    assert isinstance(await rig.gate.decide(DPOP), Allowed)
    assert tokens.calls == ["verify", "forget grant_1", "verify"]
    assert len(proofs.uses) == 1


@pytest.mark.parametrize(
    "changes, key, reason",
    [
        ({"proof": ()}, THUMBPRINT, Reason.INVALID_PROOF),
        ({"proof": (b"other",)}, THUMBPRINT, Reason.INVALID_PROOF),
        ({"authorization": (b"Bearer " + JWT,)}, THUMBPRINT, Reason.INVALID_CREDENTIALS),  # stolen
        ({}, None, Reason.INVALID_CREDENTIALS),  # bound to no key
    ],
)
@pytest.mark.parametrize("is_fresh", [True, False])
async def test_a_bound_token_without_a_proof_of_its_key_is_refused_and_uses_no_proof(
    changes: dict[str, object], key: str | None, reason: Reason, *, is_fresh: bool
) -> None:
    rig, tokens, proofs = bound_setup()
    tokens.verified = oauth_principal(key=key)
    tokens.fresh = tokens.verified if is_fresh else None
    assert reason_of(await rig.gate.decide(DPOP._replace(**changes))) is reason  # type: ignore[arg-type]  # as above
    assert proofs.uses == []
    assert rig.limits.requests == []


async def test_a_request_refused_by_a_check_uses_no_proof() -> None:
    rig, tokens, proofs = bound_setup()
    tokens.verified = replace(oauth_principal(key=THUMBPRINT), revoked=True)
    assert reason_of(await rig.gate.decide(DPOP)) is Reason.INVALID_CREDENTIALS
    assert proofs.uses == []


async def test_without_a_proof_verifier_the_dpop_scheme_is_unsupported() -> None:
    rig, _, _ = bound_setup()
    rig.proofs = None
    assert reason_of(await rig.gate.decide(DPOP)) is Reason.MISSING_CREDENTIALS


@pytest.mark.parametrize("is_cached", [True, False])
@pytest.mark.parametrize(
    "caller, route, reason",
    [
        (principal(), ROUTES[0], None),
        (principal(revoked=True), ROUTES[0], Reason.INVALID_CREDENTIALS),
        (replace(principal(), expires_at=NOW), ROUTES[0], Reason.INVALID_CREDENTIALS),
        (replace(principal(), expires_at=NOW + 1), ROUTES[0], None),
        (replace(principal(), allowlist=parse_allowlist(["198.51.100.0/24"])), ROUTES[0], Reason.ADDRESS_NOT_ALLOWED),
        (principal(), ROUTES[1], Reason.INSUFFICIENT_SCOPE),
    ],
)
async def test_a_request_in_progress_is_checked_again_and_spends_no_quota(
    caller: Principal, route: Route, reason: Reason | None, *, is_cached: bool
) -> None:
    rig = setup(fresh=caller) if is_cached else setup(finds=[caller, caller])
    denied = await rig.gate.recheck(facts(b"Bearer " + SECRET), route)
    assert (denied and denied.reason) is reason
    assert await rig.gate.is_still_allowed(facts(b"Bearer " + SECRET), route) is (reason is None)
    assert rig.limits.requests == []


@pytest.mark.parametrize(
    "authorization, detail",
    [
        (b"Bearer " + SECRET, "unknown key"),
        (b"Bearer " + JWT, "wrong signature"),
        (b"DPoP " + JWT, "wrong signature"),
        (b"Basic x", "no credential"),
    ],
)
async def test_a_request_in_progress_ends_when_its_credential_is_no_longer_good(
    authorization: bytes, detail: str
) -> None:
    rig = setup(finds=[None])
    rig.tokens = Tokens("wrong signature")
    denied = await rig.gate.recheck(facts(authorization), ROUTES[0])
    assert denied == Denied(Reason.INVALID_CREDENTIALS, detail, ROUTES[0])


async def test_a_bound_token_of_a_request_in_progress_needs_no_second_proof() -> None:
    rig, _, proofs = bound_setup()
    assert await rig.gate.is_still_allowed(DPOP._replace(proof=()), ROUTES[0])
    assert proofs.uses == []


@pytest.mark.parametrize("token", [SECRET, JWT], ids=["key", "token"])
async def test_a_request_in_progress_goes_on_while_its_credential_cannot_be_looked_up(token: bytes) -> None:
    rig = setup(finds=[StoreUnavailable("key lookup")] * 2)
    rig.tokens = Tokens(KeysetUnavailable("keys"))
    assert await rig.gate.recheck(facts(b"Bearer " + token), ROUTES[0]) is None
    assert await rig.gate.is_still_allowed(facts(b"Bearer " + token), ROUTES[0])


async def test_no_token_is_in_the_text_of_a_pending_decision() -> None:
    request = facts(b"Bearer " + SECRET)
    answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    assert repr(PendingIdentity(request, ROUTES[0], SECRET)) == "PendingIdentity('GET /v1/skills')"
    assert (
        repr(PendingAdmission(answer, principal(), request, ROUTES[0], SECRET)) == "PendingAdmission('GET /v1/skills')"
    )
