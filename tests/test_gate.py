import asyncio

import pytest

from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.decision.decision import Allowed, Denied
from machpay_gateway.core.decision.failures import Failures
from machpay_gateway.core.decision.policy import Policy
from machpay_gateway.core.decision.principal import ANONYMOUS, Principal
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.errors import KeysetUnavailable, StoreUnavailable
from machpay_gateway.core.keys.key import KeyRecord, SecretRecord, mint_secret, secret_digest
from machpay_gateway.core.limits.admission import STALE, AdmissionRequest, Exceeded, LimiterUnavailable
from machpay_gateway.core.limits.rate import TIERS
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.gate import Gate
from machpay_gateway.limiters.memory import MemoryLimiter
from machpay_gateway.stores.cache import KeyCache
from machpay_gateway.stores.memory import MemoryStore
from tests.clocks import FixedClock
from tests.gates import (
    ADDRESS,
    DIGEST,
    GRANT,
    JWT,
    NOW,
    ROUTES,
    SECRET,
    Setup,
    Slot,
    Tokens,
    facts,
    principal,
    reason_of,
    setup,
)
from tests.keyrings import logged

AWAY = LimiterUnavailable("no reply")


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
async def test_what_can_be_refused_by_its_shape_is_decided_at_once(request_facts: RequestFacts, reason: Reason) -> None:
    tried = setup()  # any load and any answer of a limiter would fail
    assert reason_of(tried.gate.decide_nowait(request_facts)) is reason
    assert not tried.keys.calls
    assert not tried.limits.demands


@pytest.mark.parametrize("authorization", [(), (b"Bearer " + SECRET,), (b"Bearer junk",), (b"a", b"b"), (b"\xff",)])
async def test_a_public_route_asks_for_nothing_and_looks_at_nothing(authorization: tuple[bytes, ...]) -> None:
    tried = setup()
    assert tried.gate.decide_nowait(facts(*authorization, path="/healthz")) == Allowed(ANONYMOUS, None, ROUTES[2])


def test_a_known_key_with_an_answer_at_hand_is_decided_at_once() -> None:
    caller = principal()
    tried = setup(at_hand=caller)
    tried.limits.at_once = GRANT
    assert tried.gate.decide_nowait(facts(b"Bearer " + SECRET)) == Allowed(caller, GRANT, ROUTES[0])
    assert tried.keys.calls == []
    assert tried.limits.demands == [AdmissionRequest("key_1", 1, TIERS["standard"], 1)]


async def test_a_key_that_is_not_known_is_looked_up_and_its_limit_asked_for() -> None:
    caller = principal()
    tried = setup(finds=[caller], answers=[GRANT])
    assert await tried.decide() == Allowed(caller, GRANT, ROUTES[0])
    assert tried.keys.calls == ["find"]


async def test_a_limiter_that_has_to_ask_is_waited_for_without_looking_the_key_up_again() -> None:
    tried = setup(at_hand=principal(), answers=[GRANT])
    assert isinstance(await tried.decide(), Allowed)
    assert tried.keys.calls == []


async def test_a_limiters_refusal_is_the_answer() -> None:
    exceeded = Exceeded("minute", wait_seconds=3.0, left=0, resets_in=3.0, slots_left=1, tier=TIERS["standard"])
    decision = await setup(finds=[principal()], answers=[exceeded]).decide()
    assert isinstance(decision, Denied)
    assert (decision.reason, decision.exceeded, decision.retry_after) == (Reason.RATE_LIMITED, exceeded, 3.0)


@pytest.mark.parametrize("is_at_hand", [True, False])
@pytest.mark.parametrize(
    "path, caller, address, reason",
    [
        ("/v1/keys", principal(), ADDRESS, Reason.INSUFFICIENT_SCOPE),
        ("/v1/skills", principal(), 7, Reason.ADDRESS_NOT_ALLOWED),
        ("/v1/skills", principal(), None, Reason.ADDRESS_NOT_ALLOWED),
        ("/v1/skills", principal(revoked=True), ADDRESS, Reason.INVALID_CREDENTIALS),
    ],
)
async def test_a_request_refused_for_what_it_may_not_spends_no_quota(
    path: str, caller: Principal, address: int | None, reason: Reason, *, is_at_hand: bool
) -> None:
    tried = setup(at_hand=caller) if is_at_hand else setup(finds=[caller])
    assert reason_of(await tried.decide(path=path, address=address)) is reason
    assert tried.limits.demands == []


async def test_a_key_that_nobody_has_reads_as_a_revoked_one() -> None:
    unknown = await setup(finds=[None]).decide()
    revoked = await setup(finds=[principal(revoked=True)]).decide()
    assert reason_of(unknown) is reason_of(revoked) is Reason.INVALID_CREDENTIALS


@pytest.mark.parametrize(
    "tried",
    [
        setup(finds=[StoreUnavailable("key lookup")]),
        setup(finds=[principal()], answers=[AWAY]),
        setup(at_hand=principal(), answers=[AWAY]),
    ],
    ids=["store", "limiter", "limiter of a known key"],
)
async def test_what_does_not_answer_is_told_as_unavailable_and_held_against_nobody(tried: Setup) -> None:
    decision = await tried.decide()
    assert isinstance(decision, Denied)
    assert (decision.reason, decision.retry_after) == (Reason.UNAVAILABLE, 1.0)
    assert len(tried.failures) == 0


async def test_a_surprise_is_not_swallowed() -> None:
    with pytest.raises(RuntimeError):
        await setup(finds=[RuntimeError()]).decide()


@pytest.mark.parametrize("is_known", [True, False])
async def test_whoever_is_cancelled_between_the_answer_and_its_arrival_holds_nothing(*, is_known: bool) -> None:
    caller, lease = principal(), Slot()
    granted = GRANT._replace(lease=lease)
    tried = setup(at_hand=caller, answers=[granted]) if is_known else setup(finds=[caller], answers=[granted])
    deciding = asyncio.create_task(tried.decide())
    await asyncio.sleep(0)
    assert tried.limits.demands
    # Answered by what runs in the next turn before this; the task that waits runs after it.
    asyncio.get_running_loop().call_soon(deciding.cancel)
    with pytest.raises(asyncio.CancelledError):
        await deciding
    assert lease.releases == 1


async def test_a_record_found_stale_is_loaded_anew_and_decided_once_more() -> None:
    tried = setup(finds=[principal(1), principal(2)], answers=[STALE, GRANT])
    decision = await tried.decide()
    assert isinstance(decision, Allowed)
    assert [demand.version for demand in tried.limits.demands] == [1, 2]
    assert tried.keys.calls == ["find", "forget", "find"]


async def test_a_record_found_stale_at_once_is_loaded_anew_too() -> None:
    tried = setup(at_hand=principal(1), finds=[principal(2)], answers=[GRANT])
    tried.limits.at_once = STALE
    assert isinstance(await tried.decide(), Allowed)
    assert [demand.version for demand in tried.limits.demands] == [1, 2]
    assert tried.keys.calls == ["forget", "find"]


async def test_a_record_found_stale_and_revoked_since_is_refused() -> None:
    tried = setup(finds=[principal(1), principal(2, revoked=True)], answers=[STALE])
    assert reason_of(await tried.decide()) is Reason.INVALID_CREDENTIALS


async def test_a_record_that_keeps_changing_is_unavailable_and_not_asked_for_ever() -> None:
    tried = setup(finds=[principal(n) for n in range(2)], answers=[STALE] * 2)
    decision = await tried.decide()
    assert isinstance(decision, Denied)
    assert (decision.reason, decision.retry_after) == (Reason.UNAVAILABLE, 1.0)
    assert tried.keys.calls == ["find", "forget"] * 2


async def test_a_key_in_use_is_not_locked_out_by_others_behind_its_address() -> None:
    caller = principal()
    tried = setup()
    tried.keys.held.add(DIGEST)  # cached, though not to be trusted before the store was asked for changes
    tried.keys.finds.append(caller)
    tried.limits.answers.append(GRANT)
    while reason_of(tried.gate.decide_nowait(facts(b"Bearer junk"))) is Reason.INVALID_CREDENTIALS:
        assert len(tried.keys.calls) == 0
    assert reason_of(tried.gate.decide_nowait(facts(b"Bearer junk"))) is Reason.TOO_MANY_FAILURES
    assert await tried.decide() == Allowed(caller, GRANT, ROUTES[0])


async def test_an_address_that_keeps_failing_is_slowed_and_junk_costs_no_lookup() -> None:
    tried = setup(finds=[None] * 3)
    assert [reason_of(await tried.decide()) for _ in range(3)] == [Reason.INVALID_CREDENTIALS] * 3
    for junk in (b"junk", SECRET[:-1], JWT):
        slowed = tried.gate.decide_nowait(facts(b"Bearer " + junk))  # a load would find the deque empty
        assert isinstance(slowed, Denied)
        assert slowed.reason is Reason.TOO_MANY_FAILURES
        assert slowed.retry_after == pytest.approx(20)


async def test_a_good_key_gets_in_from_an_address_at_which_others_keep_failing() -> None:
    caller = principal()
    tried = setup(finds=[None, *[caller] * 40], answers=[GRANT] * 40)
    gate = tried.gate
    for _ in range(10):
        gate.decide_nowait(facts(b"Bearer junk"))
    assert reason_of(await gate.decide(facts(b"Bearer " + SECRET))) is Reason.TOO_MANY_FAILURES  # nobody's
    for _ in range(40):  # only failed look-ups are counted
        assert await gate.decide(facts(b"Bearer " + SECRET)) == Allowed(caller, GRANT, ROUTES[0])


async def test_a_good_token_gets_in_from_an_address_at_which_others_keep_failing() -> None:
    caller = principal()
    tried = setup(answers=[GRANT])
    tried.tokens = Tokens(caller)
    gate = tried.gate
    for _ in range(10):
        gate.decide_nowait(facts(b"Bearer junk"))
    assert reason_of(gate.decide_nowait(facts(b"Bearer eyJ.eyJ.other"))) is Reason.TOO_MANY_FAILURES
    assert await gate.decide(facts(b"Bearer " + JWT)) == Allowed(caller, GRANT, ROUTES[0])


async def test_failed_lookups_of_an_address_that_keeps_failing_are_bounded() -> None:
    tried = setup(finds=[None] * 100)
    gate = tried.gate
    outcomes = [reason_of(await gate.decide(facts(b"Bearer " + SECRET))) for _ in range(100)]
    assert outcomes == [Reason.INVALID_CREDENTIALS] * 3 + [Reason.TOO_MANY_FAILURES] * 97
    assert len(tried.keys.calls) == 3 + 30  # ten times as many again
    at_once = [gate.decide_nowait(facts(b"Bearer " + SECRET, address=7)) for _ in range(100)]
    assert sum(not isinstance(decision, Denied) for decision in at_once) == 3 + 30  # many at once are as many


async def test_a_store_that_is_away_costs_a_slowed_address_nothing() -> None:
    tried = setup(finds=[StoreUnavailable("key lookup")] * 50)
    gate = tried.gate
    for _ in range(10):
        gate.decide_nowait(facts(b"Bearer junk"))
    outcomes = [reason_of(await gate.decide(facts(b"Bearer " + SECRET))) for _ in range(50)]
    assert outcomes == [Reason.UNAVAILABLE] * 50


async def test_every_kind_of_bad_credential_counts_and_nothing_else_does() -> None:
    tried = setup(at_hand=principal(revoked=True), finds=[None])
    for token in (SECRET, b"neither", SECRET[:-1]):
        assert reason_of(await tried.decide(token)) is Reason.INVALID_CREDENTIALS
    assert reason_of(await tried.decide()) is Reason.TOO_MANY_FAILURES
    other = setup(at_hand=principal())
    for authorization in ((), (b"Bearer a b",), (b"Basic x",)) * 3:
        other.gate.decide_nowait(facts(*authorization))
    for _ in range(5):
        await other.decide(path="/v1/keys")
    assert len(other.failures) == 0


async def test_a_slowed_address_does_not_shut_out_keys_that_are_known() -> None:
    tried = setup(at_hand=principal(), answers=[GRANT])
    for _ in range(10):
        await tried.decide(b"junk")
    assert reason_of(await tried.decide(b"junk")) is Reason.TOO_MANY_FAILURES
    assert isinstance(await tried.decide(), Allowed)


async def test_other_addresses_and_unreadable_ones_are_not_slowed() -> None:
    tried = setup()
    for _ in range(10):
        await tried.decide(b"junk")
    assert reason_of(await tried.decide(b"junk", address=ADDRESS + 1)) is Reason.INVALID_CREDENTIALS
    assert [reason_of(await tried.decide(b"junk", address=None)) for _ in range(10)] == [
        Reason.INVALID_CREDENTIALS
    ] * 10


async def test_signed_tokens_are_refused_where_no_issuer_is_configured() -> None:
    decision = await setup().decide(JWT)
    assert isinstance(decision, Denied)
    assert decision.reason is Reason.INVALID_CREDENTIALS
    assert decision.detail == "signed tokens are not accepted here"


async def test_a_signed_token_is_its_verifiers_to_judge() -> None:
    caller = principal()
    tried = setup(answers=[GRANT])
    tried.tokens = Tokens(caller)
    assert await tried.decide(JWT) == Allowed(caller, GRANT, ROUTES[0])


async def test_a_signed_token_verified_lately_is_decided_at_once() -> None:
    caller = principal()
    tried = setup()
    tried.tokens = Tokens("must not be asked", at_hand=caller)
    tried.limits.at_once = GRANT
    assert tried.gate.decide_nowait(facts(b"Bearer " + JWT)) == Allowed(caller, GRANT, ROUTES[0])


@pytest.mark.parametrize(
    "verified, reason, counted",
    [
        ("wrong signature", Reason.INVALID_CREDENTIALS, 1),
        (KeysetUnavailable("keys"), Reason.UNAVAILABLE, 0),
    ],
)
async def test_a_token_that_is_not_verified_is_not_let_in(
    verified: str | Exception, reason: Reason, counted: int
) -> None:
    tried = setup()
    tried.tokens = Tokens(verified)
    assert reason_of(await tried.decide(JWT)) is reason
    assert len(tried.failures) == counted


@pytest.mark.parametrize("prefix, environment", [("live", "test"), ("test", "live")])
async def test_a_secret_whose_prefix_and_record_disagree_is_refused_however_often_it_is_tried(
    prefix: str, environment: str
) -> None:
    clock, store = FixedClock(NOW), MemoryStore()
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
        keys=KeyCache(store, TIERS, clock=clock),
        tokens=None,
        limiter=MemoryLimiter(clock),
        failures=Failures(100, 60),
        clock=clock,
    )
    decisions = [await gate.decide(facts(b"Bearer " + secret)) for _ in range(3)]
    assert [reason_of(decision) for decision in decisions] == [Reason.INVALID_CREDENTIALS] * 3
