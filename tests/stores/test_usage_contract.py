"""What was counted, on every store: added up by each length of time, kept as long as each is, and last uses."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from machpay_gateway.core.keys.key import KeyRecord, SecretRecord
from machpay_gateway.core.scopes import Scopes
from machpay_gateway.core.usage.counters import (
    BOUNDS,
    BUCKETS,
    DAY,
    HOUR,
    MINUTE,
    Bucket,
    Dimension,
    SecretUse,
    UsageBatch,
    UsageKey,
    UsageRow,
    merge_rows,
    sum_over,
)
from machpay_gateway.stores.schema import LATENCIES
from machpay_gateway.stores.sql import SqlStore
from machpay_gateway.stores.sql.upsert import dialect_insert
from machpay_gateway.stores.sql.usage import _COLUMNS, _TABLES
from tests.keyrings import ACME, logged

Store = SqlStore
MIDNIGHT = 1_699_920_000
AT_TEN = MIDNIGHT + 10 * 3600
EVER = 2**40


@pytest.fixture
async def store(unopened_store: Store) -> AsyncIterator[Store]:
    store = unopened_store
    await store.open()
    await store.add_account(ACME, logged())
    yield store
    await store.close()


def row(
    start: int = AT_TEN,
    *,
    subject: str = "key_1",
    route: str = "GET /v1/skills",
    outcome: str = "allowed",
    status: int = 200,
    quick: int = 1,
    slow: int = 0,
) -> UsageRow:
    key = UsageKey(subject, start, route, outcome, status)
    return UsageRow(key, quick * 0.0005 + slow * 20, (quick, *(0,) * (len(BOUNDS) - 1), slow))


async def counted(store: Store, *rows: UsageRow) -> None:
    await store.add_usage(UsageBatch(rows, ()))


async def counts(store: Store, subject: str = "key_1") -> dict[str, list[tuple[int, int]]]:
    """Return (start since midnight, count) of each row by each length of time."""
    return {
        name: [(each.key.start - MIDNIGHT, each.count) for each in await store.usage(subject, bucket, 0, EVER)]
        for name, bucket in BUCKETS.items()
    }


def test_a_histogram_has_a_column_for_each_count() -> None:
    assert len(BOUNDS) + 1 == LATENCIES


async def test_what_is_counted_is_in_the_minute_the_hour_and_the_day(store: Store) -> None:
    await counted(store, row(AT_TEN), row(AT_TEN + 60, quick=2), row(AT_TEN + 3600, quick=4))
    await counted(store, row(AT_TEN + 60, quick=8), row(MIDNIGHT + 86_400, quick=16))
    assert await counts(store) == {
        "minute": [(36_000, 1), (36_060, 10), (39_600, 4), (86_400, 16)],
        "hour": [(36_000, 11), (39_600, 4), (86_400, 16)],
        "day": [(0, 15), (86_400, 16)],
    }


async def test_rows_of_one_kind_are_one_row_with_their_seconds_and_histograms_added(store: Store) -> None:
    await counted(store, row(quick=2, slow=1))
    await counted(store, row(quick=1, slow=3), row(quick=1, slow=0))
    [total] = await store.usage("key_1", HOUR, AT_TEN, AT_TEN + 1)
    assert total.histogram == (4, *(0,) * (len(BOUNDS) - 1), 4)
    assert total.seconds == pytest.approx(4 * 0.0005 + 80)
    assert total.key == row().key


async def test_each_route_outcome_status_and_subject_is_counted_by_itself(store: Store) -> None:
    kinds = [
        row(subject=""),
        row(),
        row(status=404),
        row(outcome="rate_limited", status=429),
        row(route="POST /v1/skills/execute"),
    ]
    await counted(store, *kinds)
    await counted(store, *reversed(kinds))
    of_nobody = await store.usage("", MINUTE, 0, EVER)
    of_key = await store.usage("key_1", MINUTE, 0, EVER)
    assert [each.key for each in of_nobody] == [kinds[0].key]
    assert [each.key for each in of_key] == sorted(kind.key for kind in kinds[1:])
    assert {each.count for each in (*of_nobody, *of_key)} == {2}
    assert list(await store.usage("key_unknown", DAY, 0, EVER)) == []


async def test_the_start_is_within_and_the_end_is_not(store: Store) -> None:
    await counted(store, *(row(AT_TEN + minute * 60) for minute in range(4)))
    minutes = await store.usage("key_1", MINUTE, AT_TEN + 60, AT_TEN + 180)
    assert [each.key.start for each in minutes] == [AT_TEN + 60, AT_TEN + 120]


async def test_more_rows_than_a_statement_of_sqlite_has_values_for(store: Store) -> None:
    await counted(store, *(row(subject=f"key_{number}", quick=number + 1) for number in range(3000)))
    await counted(store, *(row(subject=f"key_{number}") for number in range(3000)))
    assert await counts(store, "key_2999") == {"minute": [(36_000, 3001)], "hour": [(36_000, 3001)], "day": [(0, 3001)]}


async def test_of_many_batches_at_once_none_is_lost(store: Store) -> None:
    rows = [row(subject=f"key_{number % 7}", status=200 + number % 3) for number in range(20)]
    await asyncio.gather(*(counted(store, *rows[turn:], *rows[:turn]) for turn in range(20)))
    batches = [await store.usage(f"key_{number}", DAY, 0, EVER) for number in range(7)]
    assert sum(each.count for rows in batches for each in rows) == 400


async def test_minutes_are_kept_for_a_week_hours_for_90_days_and_days_for_two_years(store: Store) -> None:
    for days in (0, 6, 8, 89, 91, 729, 731):
        await counted(store, row(AT_TEN - days * 86_400))
    await store.drop_usage(float(AT_TEN))
    starts = {
        name: [each.key.start for each in await store.usage("key_1", bucket, 0, EVER)]
        for name, bucket in BUCKETS.items()
    }
    assert starts["minute"] == [AT_TEN - days * 86_400 for days in (6, 0)]
    assert starts["hour"] == [AT_TEN - days * 86_400 for days in (89, 8, 6, 0)]
    assert starts["day"] == [MIDNIGHT - days * 86_400 for days in (729, 91, 89, 8, 6, 0)]


async def test_hours_and_days_are_the_same_before_and_after_they_are_summed_up(store: Store) -> None:
    await counted(store, *(row(AT_TEN + minute * 60, quick=minute + 1, slow=1) for minute in range(150)))
    await counted(store, row(AT_TEN + 86_400, status=404), row(AT_TEN, subject="key_2", route="GET /other"))
    ranges = [(bucket, start, EVER) for bucket in BUCKETS.values() for start in (0, AT_TEN, AT_TEN + 3600)]
    before = [await store.usage("key_1", *each) for each in ranges]
    assert await counts(store) == {
        "minute": [*((36_000 + minute * 60, minute + 2) for minute in range(150)), (122_400, 1)],
        "hour": [(36_000, 1890), (39_600, 5490), (43_200, 4095), (122_400, 1)],
        "day": [(0, 11_475), (86_400, 1)],
    }
    for hours in (1, 2, 20, 24, 48):
        await store.drop_usage(AT_TEN + hours * 3600 + 400.0)
        after = [await store.usage("key_1", *each) for each in ranges]
        assert [[(each.key, each.histogram) for each in rows] for rows in after] == [
            [(each.key, each.histogram) for each in rows] for rows in before
        ]
        assert [sum(each.seconds for each in rows) for rows in after] == pytest.approx(
            [sum(each.seconds for each in rows) for rows in before]
        )
    await store.drop_usage(AT_TEN + 8 * 86_400.0)  # which deletes the minutes
    assert (await counts(store))["hour"] == [(36_000, 1890), (39_600, 5490), (43_200, 4095), (122_400, 1)]
    assert await counts(store, "key_2") == {"minute": [], "hour": [(36_000, 1)], "day": [(0, 1)]}


async def test_what_arrives_after_an_hour_was_summed_up_is_added_to_it(store: Store) -> None:
    await counted(store, row(AT_TEN, quick=1), row(AT_TEN + 3600, quick=2))
    await store.drop_usage(AT_TEN + 3600 + 300.0)
    await counted(store, row(AT_TEN, quick=4), row(AT_TEN + 3600, quick=8))
    assert (await counts(store))["hour"] == [(36_000, 5), (39_600, 10)]
    await store.drop_usage(AT_TEN + 86_400.0)
    await counted(store, row(AT_TEN + 60, quick=16), row(AT_TEN + 3660, status=404, quick=32))
    assert await counts(store) == {
        "minute": [(36_000, 5), (36_060, 16), (39_600, 10), (39_660, 32)],
        "hour": [(36_000, 21), (39_600, 10), (39_600, 32)],
        "day": [(0, 31), (0, 32)],
    }


async def test_batches_and_sums_at_once_lose_and_double_nothing(store: Store) -> None:
    starts = [AT_TEN + 3600 * hour for hour in range(6)]
    for turn in range(6):
        await asyncio.gather(
            *(counted(store, *(row(start, subject=f"key_{number}") for start in starts)) for number in range(5)),
            *(store.drop_usage(AT_TEN + 3600.0 * turn + 400) for _ in range(3)),
        )
    await store.drop_usage(AT_TEN + 86_400.0)
    for number in range(5):
        for bucket in BUCKETS.values():
            assert sum(each.count for each in await store.usage(f"key_{number}", bucket, 0, EVER)) == 36


async def test_minutes_that_are_not_summed_up_are_not_deleted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await counted(store, row(AT_TEN))
    with monkeypatch.context() as patch:
        patch.setattr(store, "_sum_up", nothing)
        await store.drop_usage(AT_TEN + 30 * 86_400.0)
    assert await counts(store) == {"minute": [(36_000, 1)], "hour": [(36_000, 1)], "day": [(0, 1)]}
    await store.drop_usage(AT_TEN + 30 * 86_400.0)
    assert await counts(store) == {"minute": [], "hour": [(36_000, 1)], "day": [(0, 1)]}


async def nothing(*_: object) -> None: ...


async def add_as_the_release_before(store: Store, *rows: UsageRow) -> None:
    """Add *rows* as releases until revision 0013 do: to minutes, hours and days alike."""
    async with store._database.write_transaction("usage") as connection:  # noqa: SLF001 - as it does itself
        for bucket, table in _TABLES.items():
            values = [
                dict(zip(_COLUMNS, (*each.key, each.seconds, *each.histogram), strict=True))
                for each in merge_rows(rows, bucket)
            ]
            statement = dialect_insert(connection.dialect.name, table)
            sums = {name: table.c[name] + statement.excluded[name] for name in _COLUMNS[5:]}
            statement = statement.on_conflict_do_update(index_elements=_COLUMNS[:5], set_=sums)
            await connection.execute(statement, values)


async def test_a_worker_of_the_release_before_may_count_beside_ours(store: Store) -> None:
    await add_as_the_release_before(store, row(AT_TEN - 86_400, quick=1), row(AT_TEN, quick=2))
    for hour in range(5):
        start = AT_TEN + hour * 3600
        await add_as_the_release_before(store, row(start, quick=4), row(start + 60, quick=8))
        await counted(store, row(start, quick=16), row(start + 60, quick=32))
        expected = [(-50_400, 1), (36_000, 62), *((36_000 + each * 3600, 60) for each in range(1, hour + 1))]
        assert (await counts(store))["hour"] == expected
        await store.drop_usage(start + 3600.0)
        assert (await counts(store))["hour"] == expected
    await store.drop_usage(AT_TEN + 86_400.0)
    await add_as_the_release_before(store, row(AT_TEN, quick=64))
    assert (await counts(store))["day"] == [(-86_400, 1), (0, 302 + 64)]
    assert (await counts(store))["hour"][1] == (36_000, 62 + 64)


async def test_what_an_accounts_keys_do_adds_up_at_the_account(store: Store) -> None:
    accounts = {"key_1": ACME.id, "key_2": ACME.id, "key_3": "acct_other"}
    rows = [row(), row(quick=2), row(subject="key_2", outcome="rate_limited", status=429), row(subject="key_3")]
    await store.add_usage(UsageBatch([*rows, row(subject="")], (), accounts))
    await store.add_usage(UsageBatch([row(AT_TEN + 60, subject="key_2", slow=1)], (), accounts))
    for bucket in BUCKETS.values():
        sums = merge_rows(await store.usage(ACME.id, bucket, 0, EVER), DAY)
        assert [(each.key.outcome, each.count) for each in sums] == [("allowed", 5), ("rate_limited", 1)]
        assert [each.histogram[-1] for each in sums] == [1, 0]
        assert sum(each.count for each in await store.usage("acct_other", bucket, 0, EVER)) == 1
        assert sum(each.count for each in await store.usage("key_1", bucket, 0, EVER)) == 3
        assert sum(each.count for each in await store.usage("", bucket, 0, EVER)) == 1


@pytest.mark.parametrize("over", ["route", "start"])
@pytest.mark.parametrize("bucket", BUCKETS.values(), ids=BUCKETS)
async def test_rows_are_added_up_as_the_arithmetic_has_it(store: Store, over: Dimension, bucket: Bucket) -> None:
    await counted(
        store,
        *(row(AT_TEN + minute * 60, quick=minute + 1, slow=2) for minute in range(3)),
        *(row(AT_TEN + minute * 60, route="GET /other", status=404) for minute in range(3)),
        row(AT_TEN, outcome="rate_limited", status=429),
        row(AT_TEN, subject="key_2"),
        row(AT_TEN - 86_400),
    )
    start, end = bucket.start_of(AT_TEN), bucket.start_of(AT_TEN) + 86_400
    summed = await store.usage("key_1", bucket, start, end, over=over)
    expected = sum_over(await store.usage("key_1", bucket, start, end), over, start)
    assert [(each.key, each.histogram) for each in summed] == [(each.key, each.histogram) for each in expected]
    assert [each.seconds for each in summed] == pytest.approx([each.seconds for each in expected])
    assert len(summed) == {"route": 3 + (bucket is MINUTE) * 4, "start": 3}[over]


async def test_the_busiest_minute_is_that_of_all_kinds_together(store: Store) -> None:
    await counted(store, row(AT_TEN, quick=5), row(AT_TEN + 60, quick=3), row(AT_TEN + 60, status=404, slow=3))
    await counted(store, row(AT_TEN + 120, quick=7), row(AT_TEN + 180, quick=99), row(subject="key_2", quick=50))
    assert await store.busiest_minute("key_1", AT_TEN, AT_TEN + 180) == (AT_TEN + 60, 7)  # the first of two
    assert await store.busiest_minute("key_1", AT_TEN, AT_TEN + 60) == (AT_TEN, 5)
    assert await store.busiest_minute("key_3", 0, EVER) is None


def key(number: int, *digests: int) -> KeyRecord:
    return KeyRecord(
        id=f"key_{number}",
        account_id=ACME.id,
        name="deploy",
        environment="live",
        tier="standard",
        account_tier="standard",
        scopes=Scopes(frozenset({"skills:list"})),
        allowed_ips=(),
        created_at=1000.0 + number,
        secrets=tuple(SecretRecord(digest(number), "sk_live_…0001", 1000.0) for number in digests),
    )


def digest(number: int) -> bytes:
    return bytes([number]) * 32


async def used(store: Store, *uses: tuple[int, str, float]) -> None:
    await store.add_usage(UsageBatch((), [SecretUse(digest(number), key_id, at) for number, key_id, at in uses]))


async def test_a_use_shows_at_its_secret_and_at_the_key(store: Store) -> None:
    await store.add_key(key(1, 11, 12), logged())
    await store.add_key(key(2, 21), logged())
    await used(store, (12, "key_1", 2000.5))
    records = [
        await store.key(ACME.id, "key_1"),
        await store.find_by_digest(digest(11)),
        (await store.keys(ACME.id))[1],
    ]
    for record in records:
        assert record is not None
        assert [secret.last_used_at for secret in record.secrets] == [None, 2000.5]
        assert record.last_used_at == 2000.5
    unused = await store.key(None, "key_2")
    assert unused is not None
    assert (unused.last_used_at, unused.secrets[0].last_used_at) == (None, None)


async def test_the_latest_use_wins_in_whatever_order_they_come(store: Store) -> None:
    await store.add_key(key(1, 11), logged())
    for at in (2000.0, 3000.0, 2500.0):
        await used(store, (11, "key_1", at))
    record = await store.key(ACME.id, "key_1")
    assert record is not None
    assert record.last_used_at == 3000.0


async def test_the_use_of_a_secret_that_is_gone_stays_the_keys(store: Store) -> None:
    await store.add_key(key(1, 11), logged())
    await used(store, (11, "key_1", 2000.0))
    assert await store.replace_key(replace(key(1, 12), version=2), logged())
    record = await store.key(ACME.id, "key_1")
    assert record is not None
    assert (record.last_used_at, record.secrets[0].last_used_at) == (2000.0, None)


async def test_a_use_is_no_change_of_the_key_and_a_change_writes_no_use(store: Store) -> None:
    await store.add_key(key(1, 11), logged())
    place = (await store.changes_after(None)).after
    await used(store, (11, "key_1", 2000.0))
    record = await store.key(ACME.id, "key_1")
    assert record is not None
    assert record == key(1, 11)
    assert (await store.changes_after(place)).ids == ()
    forged = replace(record, version=2, last_used_at=9.0, secrets=(replace(record.secrets[0], last_used_at=9.0),))
    assert await store.replace_key(forged, logged())
    stored = await store.key(ACME.id, "key_1")
    assert stored is not None
    assert (stored.last_used_at, stored.secrets[0].last_used_at) == (2000.0, 2000.0)


async def test_the_busiest_are_those_with_the_most_requests_since_a_minute(store: Store) -> None:
    await counted(
        store,
        row(AT_TEN - 60, subject="key_before", quick=100),
        row(AT_TEN, subject="key_a", quick=3, slow=1),
        row(AT_TEN + 60, subject="key_a", outcome="rate_limited", status=429, quick=2),
        row(AT_TEN, subject="key_b", quick=5),
        row(AT_TEN - 60, subject="key_b", quick=100),  # not since then
        row(AT_TEN + 120, subject="grant_c", quick=5),  # as many as another one: by their ids
        row(AT_TEN, subject="key_d", quick=4),
        row(AT_TEN, subject="", quick=1000),
        row(AT_TEN, subject="acct_1", quick=1000),
        row(AT_TEN, subject="acctx1", quick=1),  # an underscore is no wildcard
    )
    busiest = await store.busiest(AT_TEN, 3)
    assert [(each.key.subject, each.key.start - AT_TEN, each.count) for each in busiest] == [
        ("key_a", 0, 4),
        ("key_a", 60, 2),
        ("grant_c", 120, 5),
        ("key_b", 0, 5),
    ]
    assert busiest[0].histogram[-1] == 1
    assert len({each.key.subject for each in await store.busiest(AT_TEN, 10)}) == 5
    assert list(await store.busiest(AT_TEN + 180, 10)) == []
