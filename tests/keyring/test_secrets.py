import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from machpay_gateway.core.errors import InputError
from machpay_gateway.core.key import DAY_SECONDS, KeyRecord, secret_environment
from machpay_gateway.keyring import Keyring
from machpay_gateway.stores.memory import MemoryStore
from machpay_gateway.stores.sql import SqlStore
from tests.clocks import FixedClock
from tests.keyrings import ACME, NOW, SCOPES, Announced, counted_entropy, logged, noting


async def test_no_two_keys_share_an_id_or_a_secret(keyring: Keyring) -> None:
    made = [await keyring.create(ACME.id, name="same", scopes=[], environment="live") for _ in range(20)]
    assert len({record.id for record, _ in made} | {secret for _, secret in made}) == 40


async def test_after_a_rotation_both_secrets_belong_to_the_key_until_the_grace_ends(
    keyring: Keyring, created: tuple[KeyRecord, str], clock: FixedClock
) -> None:
    before, first = created
    clock.now = NOW + 10
    rotated = await keyring.rotate(ACME.id, before.id)
    assert rotated is not None
    record, second = rotated
    assert (record.id, record.version, record.last_rotated_at) == (before.id, 2, NOW + 10)
    assert [secret.expires_at for secret in record.secrets] == [None, NOW + 10 + DAY_SECONDS]
    assert secret_environment(second.encode()) == "live"
    for secret, position in [(first, "previous"), (second, "current")]:
        inspected = await keyring.inspect(secret)
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
    keyring: Keyring, key: KeyRecord, grace_seconds: int, expires_at: float | None, expected: list[float]
) -> None:
    await keyring.update(ACME.id, key.id, expires_at=expires_at)
    rotated = await keyring.rotate(ACME.id, key.id, grace_seconds=grace_seconds)
    assert rotated is not None
    assert [secret.expires_at for secret in rotated[0].secrets[1:]] == expected


@pytest.mark.parametrize("grace_seconds", [-1, 7 * DAY_SECONDS + 1, float("nan")])
async def test_a_grace_outside_of_a_week_is_refused(keyring: Keyring, key: KeyRecord, grace_seconds: float) -> None:
    with pytest.raises(InputError, match="use 0 to 604800"):
        await keyring.rotate(ACME.id, key.id, grace_seconds=grace_seconds)


async def test_a_second_rotation_ends_the_secret_before_the_last(
    keyring: Keyring, created: tuple[KeyRecord, str]
) -> None:
    key, first = created
    one, two = await keyring.rotate(ACME.id, key.id), await keyring.rotate(ACME.id, key.id)
    assert one is not None
    assert two is not None
    assert (await keyring.inspect(first)).key is None
    assert (await keyring.inspect(one[1])).position == "previous"
    assert (await keyring.inspect(two[1])).position == "current"


async def test_a_grace_can_be_ended_early_and_ending_none_is_no_change(
    keyring: Keyring, created: tuple[KeyRecord, str], announced: Announced
) -> None:
    key, first = created
    await keyring.rotate(ACME.id, key.id)
    ended = await keyring.end_grace(ACME.id, key.id)
    assert ended is not None
    assert (ended.version, len(ended.secrets)) == (3, 1)
    assert (await keyring.inspect(first)).key is None
    assert await keyring.end_grace(ACME.id, key.id) == ended
    assert announced == [(key.id, 2), (key.id, 3)]


async def test_an_expired_key_is_not_rotated(keyring: Keyring, key: KeyRecord, clock: FixedClock) -> None:
    await keyring.update(ACME.id, key.id, expires_at=NOW + 60)
    clock.now = NOW + 60
    with pytest.raises(InputError, match=r"expired at 2023-11-14T22:14:20Z: give it a later expires_at first"):
        await keyring.rotate(ACME.id, key.id)


async def test_a_secret_says_what_it_is(keyring: Keyring, created: tuple[KeyRecord, str]) -> None:
    _, secret = created
    elsewhere = Keyring(
        MemoryStore(), scopes=SCOPES, clock=FixedClock(NOW), entropy=counted_entropy(), announce=noting([])
    )
    assert (await elsewhere.inspect(secret)).environment == "live"
    assert (await elsewhere.inspect(secret)).key is None
    for mistyped in (secret[:-1], secret[:-1] + "_", secret.replace("live", "test"), "", "\ud800"):
        assert (await keyring.inspect(mistyped)).environment is None


def test_no_secret_is_in_the_database_files_in_clear(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/keys.db")
    keyring = Keyring(store, scopes=SCOPES, clock=FixedClock(NOW), entropy=counted_entropy(), announce=noting([]))

    async def secrets_issued() -> AsyncIterator[str]:
        await store.open()
        await store.add_account(ACME, logged())
        for environment in ("live", "test"):
            record, secret = await keyring.create(ACME.id, name="findable", scopes=[], environment=environment)
            yield secret
            rotated = await keyring.rotate(ACME.id, record.id)
            assert rotated is not None
            yield rotated[1]
            await keyring.revoke(ACME.id, record.id)

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
