import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.key import DAY_SECONDS, KeyRecord, secret_environment
from machpay_gateway.core.limits.rate import TIERS
from machpay_gateway.services.keys import Keys
from machpay_gateway.stores.sql import SqlStore
from tests.clocks import FixedClock
from tests.keyrings import ACME, NOW, SCOPES, Announced, counted_entropy, logged, noting


async def test_no_two_keys_share_an_id_or_a_secret(keys: Keys) -> None:
    made = [await keys.create(ACME.id, name="same", scopes=[], environment="live") for _ in range(20)]
    assert len({record.id for record, _ in made} | {secret for _, secret in made}) == 40


async def test_after_a_rotation_both_secrets_belong_to_the_key_until_the_grace_ends(
    keys: Keys, created: tuple[KeyRecord, str], clock: FixedClock
) -> None:
    before, first = created
    clock.now = NOW + 10
    rotated = await keys.rotate(ACME.id, before.id)
    assert rotated is not None
    record, second = rotated
    assert (record.id, record.version, record.last_rotated_at) == (before.id, 2, NOW + 10)
    assert [secret.expires_at for secret in record.secrets] == [None, NOW + 10 + DAY_SECONDS]
    assert secret_environment(second.encode()) == "live"
    for secret, position in [(first, "previous"), (second, "current")]:
        inspected = await keys.inspect(secret)
        assert (inspected.environment, inspected.key, inspected.position) == ("live", record, position)


@pytest.mark.parametrize(
    "grace_seconds, expires_at, expected",
    [
        (0, None, []),  # the old secret ends at once
        (60, None, [NOW + 60]),
        (7 * DAY_SECONDS, None, [NOW + 7 * DAY_SECONDS]),
        (60, NOW + 30, [NOW + 30]),  # a grace never outlasts its key
        (60, NOW + 90, [NOW + 60]),
    ],
)
async def test_the_previous_secret_ends_with_its_grace_or_its_key(
    keys: Keys, key: KeyRecord, grace_seconds: int, expires_at: float | None, expected: list[float]
) -> None:
    await keys.update(ACME.id, key.id, expires_at=expires_at)
    rotated = await keys.rotate(ACME.id, key.id, grace_seconds=grace_seconds)
    assert rotated is not None
    assert [secret.expires_at for secret in rotated[0].secrets[1:]] == expected


@pytest.mark.parametrize("grace_seconds", [-1, 7 * DAY_SECONDS + 1, float("nan")])
async def test_a_grace_outside_of_a_week_is_refused(keys: Keys, key: KeyRecord, grace_seconds: float) -> None:
    with pytest.raises(InputError, match="use 0 to 604800"):
        await keys.rotate(ACME.id, key.id, grace_seconds=grace_seconds)


async def test_a_second_rotation_ends_the_secret_before_the_last(keys: Keys, created: tuple[KeyRecord, str]) -> None:
    key, first = created
    one, two = await keys.rotate(ACME.id, key.id), await keys.rotate(ACME.id, key.id)
    assert one is not None
    assert two is not None
    assert (await keys.inspect(first)).key is None
    assert (await keys.inspect(one[1])).position == "previous"
    assert (await keys.inspect(two[1])).position == "current"


async def test_a_grace_can_be_ended_early_and_ending_none_is_no_change(
    keys: Keys, created: tuple[KeyRecord, str], announced: Announced
) -> None:
    key, first = created
    await keys.rotate(ACME.id, key.id)
    ended = await keys.end_grace(ACME.id, key.id)
    assert ended is not None
    assert (ended.version, len(ended.secrets)) == (3, 1)
    assert (await keys.inspect(first)).key is None
    assert await keys.end_grace(ACME.id, key.id) == ended
    assert announced == [(key.id, 2, ACME.id), (key.id, 3, ACME.id)]


async def test_an_expired_key_is_not_rotated(keys: Keys, key: KeyRecord, clock: FixedClock) -> None:
    await keys.update(ACME.id, key.id, expires_at=NOW + 60)
    clock.now = NOW + 60
    with pytest.raises(InputError, match=r"expired at 2023-11-14T22:14:20Z: give it a later expires_at first"):
        await keys.rotate(ACME.id, key.id)


async def test_a_secret_says_what_it_is(keys: Keys, created: tuple[KeyRecord, str]) -> None:
    _, secret = created
    elsewhere = Keys(
        SqlStore("memory://"),
        scopes=SCOPES,
        tiers=TIERS,
        clock=FixedClock(NOW),
        entropy=counted_entropy(),
        invalidate=noting([]),
    )
    assert (await elsewhere.inspect(secret)).environment == "live"
    assert (await elsewhere.inspect(secret)).key is None
    for mistyped in (secret[:-1], secret[:-1] + "_", secret.replace("live", "test"), "", "\ud800"):
        assert (await keys.inspect(mistyped)).environment is None


def test_no_secret_is_in_the_database_files_in_clear(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/keys.db")
    keys = Keys(
        store, scopes=SCOPES, tiers=TIERS, clock=FixedClock(NOW), entropy=counted_entropy(), invalidate=noting([])
    )

    async def secrets_issued() -> AsyncIterator[str]:
        await store.open()
        await store.add_account(ACME, logged())
        for environment in ("live", "test"):
            record, secret = await keys.create(ACME.id, name="findable", scopes=[], environment=environment)
            yield secret
            rotated = await keys.rotate(ACME.id, record.id)
            assert rotated is not None
            yield rotated[1]
            await keys.revoke(ACME.id, record.id)

    async def collected() -> list[str]:
        return [secret async for secret in secrets_issued()]

    with asyncio.Runner() as runner:
        secrets = runner.run(collected())
        while_open = dict(_files(tmp_path))
        runner.run(store.close())
    assert "keys.db-wal" in while_open
    for files in (while_open, dict(_files(tmp_path))):
        stored = b"".join(files.values())
        assert b"findable" in stored  # the files do hold what was written
        for secret in secrets:
            assert secret.encode() not in stored
            assert secret[12:-10].encode() not in stored


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.iterdir():
        yield path.name, path.read_bytes()
