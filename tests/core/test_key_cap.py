import pytest

from machpay_gateway.core.errors import KeyLimitReached
from machpay_gateway.core.keys.cap import KeyCap
from machpay_gateway.core.limits.rate import Tier

TIERS = {
    "test": Tier("1/minute", 1, max_keys=7),
    "small": Tier("1/minute", 1, max_keys=3),
    "large": Tier("9/minute", 1, max_keys=50),
    "unlimited": Tier("9/minute", 1),
}


@pytest.mark.parametrize(
    "tier, max_keys",
    [
        ("small", 3),
        ("large", 50),
        ("test", 7),
        ("unlimited", None),
        ("gone", 3),  # the least that a configured tier allows
    ],
)
def test_the_cap_is_that_of_the_tier(tier: str, max_keys: int | None) -> None:
    cap = KeyCap(TIERS)
    assert cap.max_keys(tier) == max_keys
    cap.check("live", tier, 2)
    if max_keys is None:
        cap.check("live", tier, 10**6)
    else:
        cap.check("live", tier, max_keys - 1)
        with pytest.raises(KeyLimitReached):
            cap.check("live", tier, max_keys)


def test_where_no_tier_has_a_cap_an_unknown_one_has_none_either() -> None:
    assert KeyCap({"a": TIERS["unlimited"]}).max_keys("gone") is None


@pytest.mark.parametrize(
    "environment, tier, others, message",
    [
        ("live", "small", 3, "The account has 3 working live keys, and its tier small allows 3: "),
        ("live", "small", 9, "The account has 9 working live keys, and its tier small allows 3: "),
        ("test", "one", 1, "The account has 1 working test key, and its tier one allows 1: "),
        ("live", "gone", 4, "The account has 4 working live keys, and its tier gone (unknown) allows 1: "),
    ],
)
def test_the_error_names_the_cap_and_the_way_out(environment: str, tier: str, others: int, message: str) -> None:
    cap = KeyCap(TIERS | {"one": Tier("1/minute", 1, max_keys=1)})
    with pytest.raises(KeyLimitReached) as refused:
        cap.check(environment, tier, others)
    assert str(refused.value) == f"{message}revoke a key, or ask for a higher tier."
