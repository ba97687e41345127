"""What callers get while the database hangs, is locked, is away, changes in bulk or was restored from a backup."""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Sequence

import pytest

from machpay_gateway.core.keys.key import mint_secret, secret_digest
from tests.drills.clients import once
from tests.drills.databases import FAULTS, add_keys, fleet_on_postgres
from tests.drills.load import Answer, Plan
from tests.drills.loads import READY_SECONDS, notes_in, print_row, running_loads
from tests.drills.open_loop import running_rate
from tests.drills.workers import Fleet, resident_megabytes

_MOST_WAIT_SECONDS = 1.5  # a look-up waits for a second
_RECOVERY_SECONDS = 3.0
_BELIEVED_SECONDS = 8.0
_KEYS = 50
_MANY, _PER_SECOND = 50_000, 1000


def plan_of(fleet: Fleet, secrets: Sequence[str], seconds: float, *, connections: int = 20) -> Plan:
    """Return the plan of a load of *connections* that each ask some twenty times a second."""
    began_at = time.monotonic() + READY_SECONDS
    return Plan(
        fleet.ports, "/quick", secrets, notes_in(fleet), connections, began_at, began_at + seconds,
        pause_seconds=0.05, refused_pause_seconds=0.2,
    )  # fmt: skip


async def ask_all(fleet: Fleet, secrets: Sequence[str]) -> list[tuple[int, float]]:
    """Ask each worker once with each of *secrets*, all at the same time; return the statuses and the seconds."""

    async def ask(port: int, secret: str) -> tuple[int, float]:
        began_at = time.monotonic()
        return await once(port, "/quick", secret), time.monotonic() - began_at

    return await asyncio.gather(*(ask(port, secret) for port in fleet.ports for secret in secrets))


def worst(asked: Sequence[tuple[int, float]]) -> float:
    return max(seconds for _, seconds in asked)


def statuses(asked: Sequence[tuple[int, float]]) -> Counter[int]:
    return Counter(status for status, _ in asked)


@pytest.mark.drill
@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", FAULTS)
async def test_keys_in_use_are_served_and_others_are_refused_at_once(fault: str) -> None:
    async with fleet_on_postgres(trust_seconds="60") as (fleet, postgres):
        used = [secret for _, secret in await fleet.keys(_KEYS)]
        unused = [secret for _, secret in await fleet.keys(4 * _KEYS)]
        assert statuses(await ask_all(fleet, used)) == {200: _KEYS * len(fleet.ports)}
        with running_loads([plan_of(fleet, used, 12)], fleet.folder) as loads:
            await asyncio.sleep(READY_SECONDS + 2)
            with FAULTS[fault](postgres):
                began_at = time.monotonic()
                first = await ask_all(fleet, unused)
                later = await ask_all(fleet, unused)
                await asyncio.sleep(5)
                ended_at = time.monotonic()
            recovered = await recovery_seconds(fleet, unused)
            answers = loads[0].answers()
    figures = f"not seen before: {dict(statuses(first))} after {worst(first) * 1000:.0f} ms at most, then "
    figures += f"{dict(statuses(later))} after {worst(later) * 1000:.0f} ms; back after {recovered:.1f} s"
    print_row(f"database {fault}", answers, f"{describe(answers, began_at, ended_at)}; {figures}")
    assert {answer.status for answer in answers} == {200}
    assert max(answer.came - answer.sent for answer in answers) < _MOST_WAIT_SECONDS
    assert {status for status, _ in [*first, *later]} == {503}
    assert worst(first) < _MOST_WAIT_SECONDS
    assert recovered < _RECOVERY_SECONDS


async def recovery_seconds(fleet: Fleet, secrets: Sequence[str]) -> float:
    """Return how long it takes until every one of *secrets* is accepted."""
    began_at = time.monotonic()
    while set(statuses(await ask_all(fleet, secrets))) != {200}:
        if time.monotonic() - began_at > 2 * _RECOVERY_SECONDS:
            return float("inf")
    return time.monotonic() - began_at


def describe(answers: Sequence[Answer], began_at: float, ended_at: float) -> str:
    """Return the figures of what was asked while the fault lasted."""
    during = [answer for answer in answers if began_at < answer.sent < ended_at]
    waits = sorted(answer.came - answer.sent for answer in during) or [0.0]
    p99 = waits[int(0.99 * (len(waits) - 1))]
    return (
        f"in use: {dict(Counter(answer.status for answer in during))}, p50 {statistics.median(waits) * 1000:.1f} ms, "
        f"p99 {p99 * 1000:.0f} ms, worst {waits[-1] * 1000:.0f} ms"
    )


@pytest.mark.drill
@pytest.mark.timeout(120)
async def test_records_of_a_restored_backup_are_believed_within_seconds() -> None:
    async with fleet_on_postgres() as (fleet, postgres):
        keys = await fleet.keys(_KEYS)
        secrets = [secret for _, secret in keys]
        assert set(statuses(await ask_all(fleet, secrets))) == {200}
        backup = fleet.folder / "backup"
        postgres.run("pg_dump", "--format=custom", "--clean", f"--file={backup}", "fleet")
        async with fleet.gateway() as gateway:
            await gateway.accounts.set_tier("standard", "enterprise")
            for key_id, _ in keys[:10]:
                await gateway.keys.update(None, key_id, name="renamed since the backup")
        assert set(statuses(await ask_all(fleet, secrets))) == {200}
        postgres.run("pg_restore", "--clean", "--single-transaction", "--dbname=fleet", str(backup))
        recovered, wrong = await seconds_until_settled(fleet, secrets)
        async with fleet.gateway() as gateway:
            account = await gateway.accounts.find("standard")
            revoked = await gateway.keys.revoke(None, keys[0][0])
        refused_after = await seconds_until_refused(fleet, secrets[0])
    print(f"\nrestored backup: served again after {recovered:.1f} s; a revocation held {refused_after:.2f} s later")
    assert account is not None
    assert account.tier == "standard"
    assert revoked is not None
    assert recovered < _BELIEVED_SECONDS
    assert wrong <= {503}
    assert refused_after < 1.5


async def seconds_until_settled(fleet: Fleet, secrets: Sequence[str]) -> tuple[float, set[int]]:
    """Return after how long no one of *secrets* is refused any more, and the statuses of refusals until then."""
    began_at = last = time.monotonic()
    wrong: set[int] = set()
    while time.monotonic() - began_at < 2 * _BELIEVED_SECONDS:
        if refused := set(statuses(await ask_all(fleet, secrets))) - {200}:
            last = time.monotonic()
            wrong |= refused
        await asyncio.sleep(0.1)
    return last - began_at, wrong


async def seconds_until_refused(fleet: Fleet, secret: str) -> float:
    """Return how long it takes until every worker refuses *secret*."""
    began_at = time.monotonic()
    while set(statuses(await ask_all(fleet, [secret]))) != {401}:
        if time.monotonic() - began_at > _BELIEVED_SECONDS:
            return float("inf")
    return time.monotonic() - began_at


@pytest.mark.drill
@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [100_000, 1_000_000])
async def test_the_tier_of_an_account_with_many_keys_changes_at_once(count: int) -> None:
    async with fleet_on_postgres() as (fleet, postgres):
        of_many = [secret for _, secret in await fleet.keys(_KEYS, account="many")]
        of_others = [secret for _, secret in await fleet.keys(_KEYS, account="other")]
        await add_keys(postgres, "many", [number.to_bytes(32, "big") for number in range(count)])
        with running_loads([plan_of(fleet, of_others, 12), plan_of(fleet, of_many, 12)], fleet.folder) as loads:
            await asyncio.sleep(READY_SECONDS + 5)
            changed_at = time.monotonic()
            async with fleet.gateway() as gateway:
                began_at = time.monotonic()
                await gateway.accounts.set_tier("many", "enterprise")
                seconds = time.monotonic() - began_at
            others, many = (load.answers() for load in loads)
        fleet.check_logs()
    before = p99(answer for answer in others if changed_at - 4 < answer.sent < changed_at)
    after = p99(answer for answer in others if changed_at <= answer.sent < changed_at + 4)
    print_row(f"tier of {count:,} keys", [*others, *many], f"changed in {seconds * 1000:.0f} ms; p99 of other accounts "
              f"{before * 1000:.1f} ms before, {after * 1000:.1f} ms after")  # fmt: skip
    assert {answer.status for answer in [*others, *many]} == {200}
    assert seconds < 2


def p99(answers: Iterable[Answer]) -> float:
    waits = sorted(answer.came - answer.sent for answer in answers)
    return waits[int(0.99 * (len(waits) - 1))]


@pytest.mark.drill
@pytest.mark.timeout(300)
async def test_fifty_thousand_active_keys_are_served() -> None:
    secrets = [mint_secret("live", number.to_bytes(32, "big")) for number in range(1, _MANY + 1)]
    async with fleet_on_postgres() as (fleet, postgres):
        _ = await fleet.keys(1)
        await add_keys(postgres, "standard", [secret_digest(secret.encode()) for secret in secrets])
        seconds = 2 * _MANY / _PER_SECOND  # each worker sees each key once
        with running_rate(fleet.folder, fleet.ports, secrets, _PER_SECOND, seconds) as first:
            cold = await first.outcomes()
        with running_rate(fleet.folder, fleet.ports, secrets, _PER_SECOND, 20, at_random=True) as second:
            warm = await second.outcomes()
        resident = [resident_megabytes(worker.process.pid) for worker in fleet.workers]
    for name, outcomes in (("first pass", cold), ("afterwards", warm)):
        waits = sorted(outcome.came - outcome.due for outcome in outcomes)
        statuses = dict(Counter(outcome.status for outcome in outcomes))
        print(
            f"\n{_MANY:,} keys, {name}: {statuses}, p50 {waits[len(waits) // 2] * 1000:.1f} ms, "
            f"p99 {waits[int(0.99 * len(waits))] * 1000:.0f} ms; resident {resident} MB"
        )
    assert {outcome.status for outcome in warm} == {200}
