"""Which signing key is for what, over time."""

import pytest

from machpay_gateway.core.jose.signing import PUBLISH_BEFORE_SIGNING_SECONDS, SigningKey, alive_at, signing_at, state_at

LIFE = 3660.0


def key(kid: str, signs_from: float) -> SigningKey:
    return SigningKey(kid, b"{}", b"", signs_from - PUBLISH_BEFORE_SIGNING_SECONDS, signs_from)


FIRST, SECOND, THIRD = key("a", 1000.0), key("b", 5000.0), key("c", 20_000.0)
KEYS = [SECOND, FIRST, THIRD]


@pytest.mark.parametrize(
    "now, signing, alive",
    [
        (999.0, None, "cba"),
        (1000.0, "a", "cba"),  # the next ones are published before they sign
        (4999.0, "a", "cba"),
        (5000.0, "b", "cba"),
        (5000.0 + LIFE - 1, "b", "cba"),  # and the one before until its last token has ended
        (5000.0 + LIFE, "b", "cb"),
        (20_000.0, "c", "cb"),
        (20_000.0 + LIFE, "c", "c"),
        (1e9, "c", "c"),  # the last one never ends by itself
    ],
)
def test_a_key_is_published_before_it_signs_and_until_its_tokens_expire(
    now: float, signing: str | None, alive: str
) -> None:
    found = signing_at(KEYS, now)
    assert (found and found.kid) == signing
    assert "".join(each.kid for each in alive_at(KEYS, now, LIFE)) == alive


def test_without_keys_there_is_none() -> None:
    assert signing_at([], 0.0) is None
    assert alive_at([], 0.0, LIFE) == ()


def test_each_key_has_one_state() -> None:
    assert [state_at(KEYS, each, 6000.0) for each in (FIRST, SECOND, THIRD)] == ["verifying", "signing", "next"]
