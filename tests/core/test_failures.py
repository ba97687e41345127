import pytest

from machpay_gateway.core.decision.failures import Failures
from machpay_gateway.core.network.address import parse_address

NOW = 1_700_000_000.0


def position(text: str) -> int:
    address = parse_address(text)
    assert address is not None
    return address


ONE, OTHER = position("192.0.2.1"), position("192.0.2.2")


@pytest.mark.parametrize("now", [0.0, NOW, NOW + 0.3])
@pytest.mark.parametrize("limit, window", [(1, 60), (3, 60), (7, 60), (9, 60), (120, 60), (100, 3600)])
def test_an_address_can_fail_up_to_the_limit_at_once(limit: int, window: int, now: float) -> None:
    failures = Failures(limit, window)
    assert [failures.count(ONE, now) for _ in range(limit)] == [0.0] * limit
    assert failures.count(ONE, now) == pytest.approx(window / limit, abs=1e-5)
    assert failures.wait(ONE, now) == failures.count(ONE, now)


def test_the_bucket_drains_one_failure_each_spacing() -> None:
    failures = Failures(3, 60)
    for _ in range(3):
        failures.count(ONE, NOW)
    assert failures.wait(ONE, NOW + 19) == pytest.approx(1)
    assert failures.count(ONE, NOW + 20) == 0.0
    assert failures.count(ONE, NOW + 20) == pytest.approx(20)
    assert failures.count(ONE, NOW + 60) == 0.0
    assert failures.count(ONE, NOW + 60) == 0.0
    assert failures.count(ONE, NOW + 60) == pytest.approx(20)


def test_an_address_without_failures_for_a_window_has_the_whole_limit() -> None:
    failures = Failures(3, 60)
    for _ in range(3):
        failures.count(ONE, NOW)
    assert [failures.count(ONE, NOW + 61) for _ in range(3)] == [0.0] * 3
    assert failures.count(ONE, NOW + 61) > 0


def test_queries_and_refused_counts_are_not_counted() -> None:
    failures = Failures(1, 60)
    failures.count(ONE, NOW)
    for _ in range(100):
        failures.wait(ONE, NOW)
        failures.count(ONE, NOW)
    assert failures.wait(ONE, NOW + 60) == 0.0


def test_addresses_are_counted_separately() -> None:
    failures = Failures(1, 60)
    failures.count(ONE, NOW)
    assert failures.wait(ONE, NOW) > 0
    assert failures.wait(OTHER, NOW) == 0.0


@pytest.mark.parametrize(
    "one, other, same",
    [
        ("2001:db8::1", "2001:db8::ffff:0:0:1", True),  # a host owns its /64
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_an_ipv6_64_is_one_address(one: str, other: str, *, same: bool) -> None:
    failures = Failures(1, 60)
    failures.count(position(one), NOW)
    assert (failures.wait(position(other), NOW) > 0) is same


def test_unreadable_addresses_share_a_bucket_of_ten_times_the_size() -> None:
    failures = Failures(3, 60)
    assert [failures.count(None, NOW) for _ in range(30)] == [0.0] * 30
    assert failures.count(None, NOW) == pytest.approx(2, abs=1e-4)
    assert failures.wait(ONE, NOW) == 0.0


def test_a_counted_failure_can_be_forgiven() -> None:
    failures = Failures(1, 60)
    failures.count(ONE, NOW)
    failures.forgive(ONE, NOW)
    assert (failures.wait(ONE, NOW), len(failures)) == (0.0, 0)
    failures.forgive(ONE, NOW)  # nothing to forgive
    assert failures.count(ONE, NOW) == 0.0
    assert failures.wait(ONE, NOW) > 0


def test_memory_is_bounded_and_the_oldest_failure_is_dropped() -> None:
    failures = Failures(2, 60)
    failures.count(1, NOW)
    for address in range(2, 8193):
        failures.count(address, NOW)
    failures.count(1, NOW)  # fails again: no longer the oldest
    for address in range(9000, 9000 + 8191):
        failures.count(address, NOW)
        assert len(failures) <= 8192 + 1024
    assert failures.wait(1, NOW) > 0  # it is among the last 8192
    for address in range(20_000, 20_000 + 1024 + 1):
        failures.count(address, NOW)
    assert failures.wait(1, NOW) == 0.0
    assert len(failures) >= 8192


def test_a_clock_that_is_set_back_locks_no_address_out_for_longer_than_the_window() -> None:
    failures = Failures(2, 60)
    failures.count(ONE, NOW)
    failures.count(ONE, NOW)
    assert 0 < failures.wait(ONE, NOW - 3600) <= 60
    failures = Failures(120, 60)
    failures.count(ONE, NOW)
    assert failures.wait(ONE, NOW - 3600) <= 60
