import hashlib
import string
import zlib
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.keys.key import (
    BASE62,
    KeyRecord,
    KeyStatus,
    SecretRecord,
    base62,
    checksum,
    mask_secret,
    mint_id,
    mint_secret,
    secret_digest,
    secret_environment,
)
from machpay_gateway.core.scopes import Scopes

ENTROPY = bytes(range(32))


def minted(environment: str = "live", entropy: bytes = ENTROPY) -> bytes:
    return mint_secret(environment, entropy).encode()


def random_bytes(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(4, "big")).digest()


@given(st.sampled_from(["live", "test"]), st.binary(min_size=32, max_size=32))
def test_a_minted_secret_has_the_format_and_is_recognized(environment: str, entropy: bytes) -> None:
    secret = mint_secret(environment, entropy)
    prefix = f"sk_{environment}_mp1_"
    body, closing = secret[: len(prefix) + 32], secret[len(prefix) + 32 :]
    assert body.startswith(prefix)
    assert len(closing) == 6
    assert closing == base62(zlib.crc32(body.encode()), 6)
    assert set(secret[len(prefix) :]) <= set(string.ascii_letters + string.digits)
    assert secret_environment(secret.encode()) == environment


def test_every_single_character_mutation_is_refused() -> None:
    secret = minted()
    replacements = [bytes([value]) for value in range(256)]
    for at in range(len(secret)):
        for other in replacements:
            mutated = secret[:at] + other + secret[at + 1 :]
            assert mutated == secret or secret_environment(mutated) is None, (at, other)


def test_every_lost_and_every_swapped_character_is_refused() -> None:
    secret = minted(entropy=random_bytes(1))
    for at in range(len(secret)):
        assert secret_environment(secret[:at] + secret[at + 1 :]) is None
        swapped = secret[:at] + secret[at + 1 : at + 2] + secret[at : at + 1] + secret[at + 2 :]
        assert swapped == secret or secret_environment(swapped) is None, at


def closed(body: bytes) -> bytes:
    return body + checksum(body)


RANDOM = b"0" * 32


@pytest.mark.parametrize(
    "secret",
    [
        b"",
        minted() + b"\n",  # `$` in a pattern would let it pass
        b" " + minted(),
        minted() + b"0",
        minted().upper(),
        closed(b"sk_prod_mp1_" + RANDOM),  # no such environment, though the checksum is right
        closed(b"sk_live_mp2_" + RANDOM),  # another tag
        closed(b"sk_live_" + RANDOM),  # another payment company's shape
        closed(b"pk_live_mp1_" + RANDOM),
        closed(b"sk_LIVE_mp1_" + RANDOM),
        closed(b"sk_live_mp1_" + RANDOM[1:]),
        closed(b"sk_live_mp1_" + RANDOM + b"0"),
        closed(b"sk_live_mp1_" + RANDOM[1:] + b"-"),  # outside of the alphabet
        closed(b"sk_live_mp1_" + RANDOM[1:] + b"\x00"),
        closed(b"sk_live_mp1_" + RANDOM[2:] + "é".encode()),
    ],
)
def test_what_is_not_exactly_a_secret_is_refused_whatever_its_checksum(secret: bytes) -> None:
    assert secret_environment(secret) is None


def test_the_checksum_covers_the_environment() -> None:
    live = minted("live")
    assert secret_environment(live.replace(b"live", b"test")) is None


def test_the_alphabet_is_62_different_characters() -> None:
    assert len(BASE62) == len(set(BASE62)) == 62


@pytest.mark.parametrize(
    "number, length, text",
    [(0, 1, "0"), (61, 1, "z"), (62, 2, "10"), (62, 1, "0"), (62**6 - 1, 6, "zzzzzz"), (0, 6, "000000"), (5, 0, "")],
)
def test_base62_is_the_lowest_digits_most_significant_first(number: int, length: int, text: str) -> None:
    assert base62(number, length) == text


def test_a_crc32_always_fits_the_checksum() -> None:
    assert 62**6 > 2**32


def test_characters_of_secrets_are_spread_evenly() -> None:
    secrets = [mint_secret("live", random_bytes(number)) for number in range(1000)]
    assert len(set(secrets)) == len(secrets)
    for at in (12, 27, 43):  # the first, one in the middle, the last of the random characters
        counts = Counter(secret[at] for secret in secrets)
        assert len(counts) == 62
        assert max(counts.values()) < 45  # 16 expected; chance alone does not reach 45 in ages


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_too_little_or_too_much_entropy_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes of entropy"):
        mint_secret("live", bytes(size))


@pytest.mark.parametrize("environment", ["", "prod", "LIVE", "live "])
def test_an_environment_that_does_not_exist_is_refused(environment: str) -> None:
    with pytest.raises(ConfigurationError, match="does not exist: use live or test"):
        mint_secret(environment, ENTROPY)


def test_an_id_names_its_kind_and_differs_with_its_entropy() -> None:
    ids = {mint_id("key", random_bytes(number)) for number in range(1000)}
    assert len(ids) == 1000
    assert all(key_id.startswith("key_") and len(key_id) == 26 and key_id[4:].isalnum() for key_id in ids)


def test_a_masked_secret_shows_the_environment_and_the_last_four_characters_only() -> None:
    secret = mint_secret("live", ENTROPY)
    assert mask_secret(secret) == f"sk_live_…{secret[-4:]}"
    assert secret[8:-4] not in mask_secret(secret)


def test_the_digest_is_sha256() -> None:
    assert secret_digest(b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def record(*, expires_at: float | None = None, revoked_at: float | None = None) -> KeyRecord:
    secrets = (SecretRecord(bytes(32), "sk_live_…curr", 2.0), SecretRecord(b"1" * 32, "sk_live_…prev", 1.0))
    return KeyRecord(
        id="key_1",
        account_id="acct_1",
        name="n",
        environment="live",
        tier="standard",
        scopes=Scopes(),
        allowed_ips=(),
        created_at=1.0,
        secrets=secrets,
        expires_at=expires_at,
        revoked_at=revoked_at,
    )


@pytest.mark.parametrize(
    "expires_at, revoked_at, now, status",
    [
        (None, None, 1e12, KeyStatus.ACTIVE),
        (100.0, None, 99.9, KeyStatus.ACTIVE),
        (100.0, None, 100.0, KeyStatus.EXPIRED),  # the moment itself is past
        (None, 50.0, 60.0, KeyStatus.REVOKED),
        (100.0, 50.0, 200.0, KeyStatus.REVOKED),  # revoked is final, whatever else holds
    ],
)
def test_the_status_depends_on_the_given_time(
    expires_at: float | None, revoked_at: float | None, now: float, status: KeyStatus
) -> None:
    assert record(expires_at=expires_at, revoked_at=revoked_at).status(now) is status


DAY = 86_400.0


@pytest.mark.parametrize(
    "changed, now, due",
    [
        ({}, 1.0 + 90 * DAY, False),
        ({}, 2.0 + 90 * DAY, True),
        ({"last_rotated_at": 10 * DAY}, 91 * DAY, False),  # its secret is younger than the key
        ({"last_rotated_at": 10 * DAY}, 101 * DAY, True),
        ({"expires_at": 91 * DAY}, 92 * DAY, False),  # nobody can use it: there is nothing to rotate
        ({"revoked_at": 1.0}, 92 * DAY, False),
    ],
)
def test_rotation_is_due_for_a_key_in_use_whose_secret_is_older_than_90_days(
    changed: dict[str, float], now: float, *, due: bool
) -> None:
    assert replace(record(), **changed).is_rotation_due(now) is due  # type: ignore[arg-type]  # times only


def test_a_key_is_masked_by_its_current_secret() -> None:
    assert record().masked == "sk_live_…curr"


def test_no_digest_is_in_the_repr_of_a_record() -> None:
    assert "digest" not in repr(record())
    assert repr(b"1" * 32) not in repr(record())
