"""What is counted is stored every few seconds, and nothing of it is lost while the process lives."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from machpay_gateway.core.decision.principal import ANONYMOUS, Principal
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.core.usage.counters import ALLOWED, BOUNDS, SecretUse, UsageBatch, UsageKey
from machpay_gateway.telemetry.usage import UsageRecorder
from tests.clocks import Alarms, FixedClock
from tests.gates import principal

NOON = 1_700_049_600.0
ROUTE = Route("GET /v1/skills")
OTHER = Route("POST /v1/skills/execute")
KEY = replace(principal(), secret_digest=b"d" * 32)


class Sink:
    """A store that keeps the batches it is given; it can be away, and can be held in the middle of storing."""

    def __init__(self) -> None:
        self.batches: list[UsageBatch] = []
        self.dropped: list[float] = []
        self.tries = 0
        self.error: Exception | None = None
        self.entered = asyncio.Event()
        self.let_go = asyncio.Event()
        self.let_go.set()

    async def add_usage(self, batch: UsageBatch) -> None:
        self.tries += 1
        self.entered.set()
        await self.let_go.wait()
        if self.error is not None:
            raise self.error
        self.batches.append(batch)

    async def drop_usage(self, now: float) -> None:
        self.dropped.append(now)

    @property
    def counts(self) -> dict[tuple[str, str, str, int], int]:
        """What is stored of each kind, whatever its minute."""
        counts: dict[tuple[str, str, str, int], int] = {}
        for batch in self.batches:
            for row in batch.rows:
                kind = (row.key.subject, row.key.route, row.key.outcome, row.key.status)
                counts[kind] = counts.get(kind, 0) + row.count
        return counts


class Rig:
    def __init__(self, clock: FixedClock, timer: FixedClock, alarms: Alarms) -> None:
        self.clock, self.timer, self.alarms = clock, timer, alarms
        self.sink = Sink()
        self.recorder = self.recording()

    def recording(self, **options: Any) -> UsageRecorder:  # noqa: ANN401 - what the recorder takes
        return UsageRecorder(self.sink, clock=self.clock, timer=self.timer, **{"seconds": 10.0, **options})

    def record(
        self,
        caller: Principal | None = KEY,
        route: Route | None = ROUTE,
        outcome: str = ALLOWED,
        status: int = 200,
        seconds: float = 0.0004,
    ) -> None:
        self.recorder.record(caller, route, outcome, status, self.timer() - seconds)


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    clock = FixedClock(NOON + 0.25)
    alarms = Alarms(clock)
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", alarms.call_later)
    return Rig(clock, FixedClock(5000.0), alarms)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    with caplog.at_level(logging.WARNING):
        yield lambda: [record.getMessage() for record in caplog.records]


async def test_counts_are_stored_in_one_batch_when_it_is_due(rig: Rig) -> None:
    for _ in range(1000):
        rig.record()
    assert [delay for delay, _ in rig.alarms.set] == [9.75]
    await rig.alarms.go_off()
    assert rig.sink.tries == 1
    assert rig.sink.counts == {("key_1", "GET /v1/skills", "allowed", 200): 1000}


async def test_without_counts_nothing_is_stored(rig: Rig) -> None:
    rig.recorder.open()
    assert rig.alarms.set == []
    rig.record()
    await rig.alarms.go_off()
    assert rig.alarms.set == []
    await rig.recorder.close()
    assert rig.sink.tries == 1


async def test_each_series_is_counted_separately_and_other_callers_without_a_subject(rig: Rig) -> None:
    token = replace(KEY, kind="jwt", subject="user-1", secret_digest=None)
    rig.record()
    rig.record(status=404)
    rig.record(route=OTHER)
    rig.record(outcome=Reason.RATE_LIMITED, status=429)
    rig.record(token)
    rig.record(None)
    rig.recorder.record(ANONYMOUS, ROUTE, ALLOWED, 200, rig.timer())
    rig.record(None, None, Reason.ROUTE_NOT_FOUND, 404)
    await rig.recorder.close()
    assert rig.sink.counts == {
        ("key_1", "GET /v1/skills", "allowed", 200): 1,
        ("key_1", "GET /v1/skills", "allowed", 404): 1,
        ("key_1", "POST /v1/skills/execute", "allowed", 200): 1,
        ("key_1", "GET /v1/skills", "rate_limited", 429): 1,
        ("", "GET /v1/skills", "allowed", 200): 3,
        ("", "", "route_not_found", 404): 1,
    }


async def test_a_key_that_was_loaded_again_is_the_same_subject(rig: Rig) -> None:
    rig.record()
    rig.record(replace(KEY, version=2))
    await rig.recorder.close()
    [batch] = rig.sink.batches
    assert [(row.key.subject, row.count) for row in batch.rows] == [("key_1", 2)]


@pytest.mark.parametrize("seconds, bucket", [(0.0, 0), (0.001, 0), (0.0011, 1), (0.3, 8), (10.0, 12), (3600.0, 13)])
async def test_a_duration_is_in_its_bucket_of_the_histogram(rig: Rig, seconds: float, bucket: int) -> None:
    rig.timer.now = 0.0
    rig.recorder.record(KEY, ROUTE, ALLOWED, 200, -seconds)
    await rig.recorder.close()
    [row] = rig.sink.batches[0].rows
    assert row.seconds == seconds
    assert row.histogram == tuple(int(at == bucket) for at in range(len(BOUNDS) + 1))


async def test_a_batch_is_of_the_minute_it_began_in(rig: Rig) -> None:
    rig.clock.now = NOON + 59.9
    rig.record()
    await rig.alarms.go_off()
    rig.record()
    await rig.alarms.go_off()
    assert [row.key.start - NOON for batch in rig.sink.batches for row in batch.rows] == [0, 60]


@pytest.mark.parametrize(
    "seconds, now, delay", [(1, 0.25, 0.75), (10, 17.0, 3.0), (25, 30.0, 20.0), (25, 50.5, 9.5), (60, 1.0, 59.0)]
)
async def test_a_batch_is_due_at_moments_that_workers_share_and_when_its_minute_ends(
    rig: Rig, seconds: float, now: float, delay: float
) -> None:
    rig.recorder = rig.recording(seconds=seconds)
    rig.clock.now = NOON + now
    rig.record()
    assert [each for each, _ in rig.alarms.set] == [delay]


def many(count: int) -> list[Principal]:
    return [replace(KEY, subject=f"key_{number}", secret_digest=bytes([number]) * 32) for number in range(count)]


async def test_a_batch_of_many_rows_waits_for_requests(rig: Rig) -> None:
    for _ in range(2):
        for caller in many(100):
            for _ in range(7):
                rig.record(caller)
        await rig.alarms.go_off()
        assert sum(rig.sink.counts.values()) == 0  # 100 rows, and not 2000 requests yet
    for caller in many(86):
        for _ in range(7):
            rig.record(caller)
    await rig.alarms.go_off()
    assert sum(rig.sink.counts.values()) == 2002
    assert len(rig.sink.counts) == 100


async def test_a_batch_of_many_rows_waits_at_most_until_its_minute_ends(rig: Rig) -> None:
    for _ in range(6):
        for caller in many(100):
            rig.record(caller)
        assert sum(rig.sink.counts.values()) == 0
        await rig.alarms.go_off()
    assert rig.clock.now == NOON + 60
    assert sum(rig.sink.counts.values()) == 600
    assert len(rig.sink.counts) == 100
    assert rig.recorder.unstored == 0


async def test_a_batch_of_few_rows_waits_for_nothing(rig: Rig) -> None:
    for caller in many(20):
        rig.record(caller)
    await rig.alarms.go_off()
    assert sum(rig.sink.counts.values()) == 20


async def test_a_batch_that_fills_half_of_the_memory_waits_for_nothing(rig: Rig) -> None:
    rig.recorder = rig.recording(max_series=100)
    for caller in many(80):
        rig.record(caller)
    for _ in range(5):
        await asyncio.sleep(0)  # no timer goes off
    assert sum(rig.sink.counts.values()) == 80
    assert ("", ROUTE.match, ALLOWED, 200) not in rig.sink.counts


async def test_the_last_use_of_a_secret_is_stored_once_a_minute(rig: Rig) -> None:
    stored: list[int] = []
    while len(stored) < 9 or rig.alarms.set:  # after the last request, until nothing waits
        if len(stored) < 9:
            rig.record()
        await rig.alarms.go_off()
        stored.append(sum(len(batch.uses) for batch in rig.sink.batches))
        rig.sink.batches.clear()
    assert stored == [1, *[0] * 5, 1, *[0] * 5, 1]
    rig.record()
    await rig.recorder.close()
    assert len(rig.sink.batches[-1].uses) == 1  # a stop waits for nothing


async def test_the_first_use_since_a_change_of_the_key_is_stored_at_once(rig: Rig) -> None:
    stored: list[int] = []
    for version in (1, 1, 2, 2, 3):
        rig.record(replace(KEY, version=version))
        await rig.alarms.go_off()
        stored.append(sum(len(batch.uses) for batch in rig.sink.batches))
        rig.sink.batches.clear()
    assert stored == [1, 0, 1, 0, 1]


async def test_the_last_use_of_each_secret_is_exact(rig: Rig) -> None:
    old = replace(KEY, secret_digest=b"o" * 32)
    rig.record(old)
    rig.clock.advance(0.125)
    rig.timer.advance(0.125)
    rig.record(KEY, outcome=Reason.RATE_LIMITED, status=429)
    rig.record(old, route=OTHER)
    rig.clock.advance(0.25)
    rig.timer.advance(0.25)
    rig.record(KEY)
    await rig.alarms.go_off()
    # The alarm comes 0.375 s after the last: the wall clock went on, and so has the timer in a real process.
    since = rig.clock() - rig.timer()
    assert sorted(rig.sink.batches[0].uses) == [
        SecretUse(b"d" * 32, "key_1", 5000.375 + since),
        SecretUse(b"o" * 32, "key_1", 5000.125 + since),
    ]


async def test_counts_during_a_flush_are_in_the_next_batch(rig: Rig) -> None:
    rig.sink.let_go.clear()
    rig.record()
    await rig.alarms.go_off()
    rig.record(status=404)
    await rig.alarms.go_off()  # a second later the first is still under way: no second flight beside it
    assert rig.sink.tries == 1
    rig.sink.let_go.set()
    for _ in range(5):
        await asyncio.sleep(0)
    await rig.alarms.go_off()
    assert [[row.key.status for row in batch.rows] for batch in rig.sink.batches] == [[200], [404]]


async def test_a_failed_batch_is_stored_later_and_logged_once(rig: Rig, told: Callable[[], list[str]]) -> None:
    rig.sink.error = StoreUnavailable("usage")
    for _ in range(3):
        rig.record()
        await rig.alarms.go_off()
    assert rig.sink.tries == 3
    rig.sink.error = None
    await rig.alarms.go_off()  # set again by the failure, without another request
    assert rig.sink.counts == {("key_1", "GET /v1/skills", "allowed", 200): 3}
    assert [use.digest for use in rig.sink.batches[0].uses] == [KEY.secret_digest]
    reason = "The database did not answer (usage): see that it runs and that `database` names it."
    assert told() == [
        f"Usage cannot be stored; the gateway retries every 10 s. {reason}",
        "Usage is stored again.",
    ]


async def test_an_unexpected_error_is_logged_and_loses_nothing(rig: Rig, told: Callable[[], list[str]]) -> None:
    rig.sink.error = RuntimeError("a mistake of ours")
    rig.record()
    await rig.alarms.go_off()
    assert told() == ["Usage cannot be stored; the gateway retries every 10 s."]
    rig.sink.error = None
    await rig.alarms.go_off()
    assert sum(rig.sink.counts.values()) == 1


async def test_closing_stores_the_rest_and_waits_for_a_running_flush(rig: Rig) -> None:
    rig.sink.let_go.clear()
    rig.record()
    await rig.alarms.go_off()
    rig.record(status=404)
    closing = asyncio.create_task(rig.recorder.close())
    await asyncio.sleep(0)
    rig.sink.let_go.set()
    await closing
    assert [status for (_, _, _, status) in rig.sink.counts] == [200, 404]


async def test_closing_during_an_outage_ends_and_logs_how_many_are_lost(
    rig: Rig, told: Callable[[], list[str]]
) -> None:
    rig.sink.error = StoreUnavailable("usage")
    for _ in range(7):
        rig.record()
    await rig.recorder.close()
    assert told()[-1] == "7 requests are missing from the stored usage."


async def test_counts_after_closing_are_stored_when_it_is_opened_again(rig: Rig) -> None:
    await rig.recorder.close()
    rig.record()
    assert rig.alarms.set == []
    rig.recorder.open()
    await rig.alarms.go_off()
    assert sum(rig.sink.counts.values()) == 1


async def test_beyond_max_series_the_totals_are_right_and_memory_is_bounded(rig: Rig) -> None:
    rig.recorder = rig.recording(max_series=10)
    callers = [replace(KEY, subject=f"key_{number}") for number in range(50)]
    for caller in callers:
        rig.record(caller)
    await rig.recorder.close()
    assert rig.sink.counts[("", "", "allowed", 200)] == 40
    assert sum(rig.sink.counts.values()) == 50
    assert len(rig.sink.counts) == 11


async def test_in_a_long_outage_memory_is_bounded_and_the_totals_are_right(rig: Rig) -> None:
    rig.recorder = rig.recording(max_series=10)
    rig.sink.error = StoreUnavailable("usage")
    for _ in range(100):
        rig.record()
        await rig.alarms.go_off()
        rig.clock.advance(59)
    rig.sink.error = None
    rig.record()
    await rig.alarms.go_off()
    [batch] = rig.sink.batches
    assert len(batch.rows) == 11
    assert sum(row.count for row in batch.rows) == 101
    assert sum(row.count for row in batch.rows if row.key.subject == "") == 91


@pytest.mark.parametrize("status", [0, 99, 1000, 2**70, "200", None])
async def test_an_invalid_status_does_not_fail_a_batch(rig: Rig, status: Any) -> None:  # noqa: ANN401 - what applications send
    rig.record(status=status)
    rig.record()
    await rig.recorder.close()
    assert {status for (_, _, _, status) in rig.sink.counts} == {0, 200}


async def test_old_rows_are_dropped_once_an_hour(rig: Rig) -> None:
    for _ in range(3):
        rig.record()
        await rig.alarms.go_off()
        rig.clock.advance(1799)
    assert [round(at - NOON) for at in rig.sink.dropped] == [10, 3610]


async def test_an_event_loop_that_ends_during_a_flush_loses_nothing(rig: Rig) -> None:
    rig.sink.let_go.clear()
    rig.record()
    await rig.alarms.go_off()
    [flush] = asyncio.all_tasks() - {asyncio.current_task()}
    flush.cancel()
    await asyncio.wait([flush])
    rig.sink.let_go.set()
    await rig.recorder.close()
    assert sum(rig.sink.counts.values()) == 1


def test_counts_of_one_event_loop_are_stored_in_the_next() -> None:
    sink = Sink()
    recorder = UsageRecorder(sink)

    async def leave() -> None:
        recorder.record(KEY, ROUTE, ALLOWED, 200, 0.0)

    async def go_on() -> None:
        alarms = Alarms(FixedClock())
        asyncio.get_running_loop().call_later = alarms.call_later  # type: ignore[assignment]  # of this loop alone
        recorder.open()
        await alarms.go_off()

    asyncio.run(leave())
    asyncio.run(go_on())
    assert sum(sink.counts.values()) == 1


async def test_rows_have_the_order_of_the_tables_key(rig: Rig) -> None:
    rig.record()
    await rig.recorder.close()
    assert rig.sink.batches[0].rows[0].key == UsageKey("key_1", int(NOON), "GET /v1/skills", "allowed", 200)


async def test_counts_are_in_the_metrics_at_once_and_unstored_until_stored() -> None:
    sink, clock = Sink(), FixedClock(NOON)
    recorder = UsageRecorder(sink, clock=clock, timer=clock)
    token = replace(principal(), kind="jwt", tier="pro")
    sink.error = StoreUnavailable("usage")
    for whose in (KEY, KEY, token, ANONYMOUS, None):
        recorder.record(whose, ROUTE, ALLOWED, 200, NOON)
    recorder.gather()
    requests = {
        labels: series[0] for (name, labels), series in recorder.requests.counts.items() if name.endswith("_total")
    }
    assert requests == {
        (ALLOWED, ROUTE.match, KEY.tier, "2xx"): 2,
        (ALLOWED, ROUTE.match, "pro", "2xx"): 1,  # of another issuer: nobody, but of a tier
        (ALLOWED, ROUTE.match, "-", "2xx"): 2,
    }
    assert recorder.unstored == 5
    await recorder.close()
    assert (recorder.unstored, sink.batches) == (5, [])
    recorder.record(KEY, ROUTE, ALLOWED, 200, NOON)
    sink.error = None
    await recorder.close()
    assert recorder.unstored == 0
    assert sink.counts == {(KEY.subject, ROUTE.match, ALLOWED, 200): 3, ("", ROUTE.match, ALLOWED, 200): 3}


async def test_tiers_that_are_not_configured_are_counted_and_logged_once_a_minute(
    rig: Rig, told: Callable[[], list[str]]
) -> None:
    recorder = rig.recorder = rig.recording(tiers=("standard", "test"))
    own = replace(KEY, tier="basic", account_tier="standard")
    of_account = replace(KEY, subject="key_2", tier="standard", account_tier="gone", account_id="acct_2")
    both = replace(KEY, subject="grant_3", tier="basic", account_tier="basic", account_id="acct_3")
    for caller in (KEY, own, own, of_account, ANONYMOUS, None):
        rig.record(caller)  # type: ignore[arg-type]  # as the proxy records callers of public routes
    recorder.gather()
    assert recorder.unknown_tiers.counts == {"basic": 2, "gone": 1}
    first, second = told()
    assert first.startswith('Tier "basic" is not configured, so its requests get the least that the configured tiers')
    assert "of key_1 of account acct_" in first
    assert '"gone"' in second
    assert "of key_2 of account acct_2" in second
    assert "`machpay-gateway accounts set-tier`" in second
    for _ in range(59):
        rig.timer.advance(1.0)
        rig.record(both)
        recorder.gather()
    assert len(told()) == 2
    rig.timer.advance(1.0)
    recorder.gather()
    assert len(told()) == 2  # nothing arrived
    rig.record(both, outcome=Reason.RATE_LIMITED, status=429)
    recorder.gather()
    assert recorder.unknown_tiers.counts == {"basic": 62, "gone": 1}
    assert len(told()) == 3
    assert "of grant_3 of account acct_3" in told()[-1]
