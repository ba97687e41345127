"""What is remembered of fields is bounded, and makes no difference to what is done with them."""

import tracemalloc

import pytest

from machpay_gateway.proxy.header_fields import DROP, HOST, INVALID, request_fields


def test_the_caches_of_lines_and_names_are_bounded() -> None:
    fields = request_fields(b"x-forwarded-for")
    for number in range(10_000):  # short enough to be cached
        assert fields[b"Name-%d: 1" % number] is None
        assert fields[b"Name: %d" % number] is None
    assert 0 < len(fields) <= 4096
    assert 0 < len(fields._kinds) <= 4096  # noqa: SLF001 - memory has no other witness


def test_long_made_up_names_are_not_cached() -> None:
    fields = request_fields(b"x-forwarded-for")
    tracemalloc.start()
    try:
        for number in range(5000):
            assert fields[b"%d" % number + b"x" * 30_000 + b": 1"] is None
        allocated, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert allocated < 5_000_000


@pytest.mark.parametrize("length, kind", [(255, HOST), (256, INVALID), (30_000, INVALID)])
def test_a_host_that_is_longer_than_any_name_is_refused(length: int, kind: int) -> None:
    """What is said to the upstream is remembered by it, among others."""
    field = request_fields(b"x-forwarded-for")[b"Host: " + b"a" * length]
    assert field is not None
    assert field.kind == kind


def test_a_name_evicted_from_the_cache_is_classified_as_before() -> None:
    fields = request_fields(b"x-forwarded-for")
    for number in range(10_000):
        assert fields[b"Name-%d: 1" % number] is None
    for line in (b"X-MachPay-Account: 1", b"x_machpay_account: 1", b"X-Real-Ip: 1"):
        field = fields[line]
        assert field is not None
        assert field.kind == DROP
