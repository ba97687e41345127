import ipaddress  # noqa: TID251 - a second opinion, which nothing but a test needs
import json
import sys
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from timeit import timeit
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netaddr import IPAddress, IPNetwork

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.network.address import (
    address_block,
    format_address,
    parse_address,
    parse_allowlist,
    parse_network,
)

CONFORMANCE = Path(__file__).parents[2] / "../shared/conformance/ip/netip.json"


def conformance() -> Any:  # noqa: ANN401 - JSON as it was written elsewhere
    if not CONFORMANCE.exists():
        pytest.skip(f"{CONFORMANCE} is not here: the cases from Go's net/netip are not tried")
    return json.loads(CONFORMANCE.read_text())


def position(text: str) -> int:
    found = parse_address(text)
    assert found is not None, text
    return found


def test_go_conformance_addresses_are_parsed() -> None:
    for text, canonical in conformance()["addr_valid"]:
        expected = ipaddress.ip_address(canonical.partition("%")[0])
        mapped = expected.ipv4_mapped if isinstance(expected, ipaddress.IPv6Address) else None
        assert format_address(position(text)) == str(mapped or expected)


def test_go_conformance_networks_contain_the_same_addresses() -> None:
    for case in conformance()["prefix_ok"]:
        allowed = parse_allowlist([case["prefix"]])
        assert [text for text in case["contains"] if position(text) not in allowed] == []
        assert [text for text in case["not_contains"] if position(text) in allowed] == []


@pytest.mark.parametrize(
    "text, same_as",
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),  # RFC 4291 §2.5.5.2
        ("::FFFF:C000:201", "192.0.2.1"),
        ("0:0:0:0:0:ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1%eth0", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8:0:0:0:0:0:1"),
        ("fe80::1%eth0", "fe80::1"),  # a zone names an interface of one host (RFC 4007 §6)
    ],
)
def test_two_spellings_of_an_address_are_equal(text: str, same_as: str) -> None:
    assert position(text) == position(same_as)


@pytest.mark.parametrize(
    "text, other",
    [
        ("::1.2.3.4", "1.2.3.4"),  # IPv4-compatible is long gone (RFC 4291 §2.5.5.1)
        ("::", "0.0.0.0"),  # noqa: S104 - an address among others, nothing is bound
        ("64:ff9b::1.2.3.4", "1.2.3.4"),
        ("::fffe:1.2.3.4", "1.2.3.4"),
    ],
)
def test_an_unmapped_ipv6_address_is_no_ipv4_address(text: str, other: str) -> None:
    assert position(text) != position(other)


NO_ADDRESS = [
    "",
    " ",
    "10.1",  # netaddr and inet_aton read 10.0.0.1
    "010.0.0.1",  # octal to some, decimal to others
    "0x7f.0.0.1",
    "0x7f000001",
    "2130706433",
    "127.0.0.1 ",
    " 127.0.0.1",
    "127.0.0.1\n",
    "127.0.0.1\x00",
    "\uff11\uff12\uff17.0.0.1",  # fullwidth digits
    "127.0.0.\u0663",
    "127.0.0.1/32",
    "127.0.0.1:80",
    "127.0.0.256",
    "127.0.0.1.",
    "1.2.3.4%eth0",  # IPv4 has no zones
    "fe80::1%",
    "%eth0",
    "[::1]",
    "::1::",
    "1:2:3:4:5:6:7:8:9",
    "::ffff:010.0.0.1",
    "::ffff:1.2.3",
    "::1 %eth0",
    "localhost",
    "unknown",
    "fe80::1%" + "z" * 64,  # over-long
]


@pytest.mark.parametrize("text", NO_ADDRESS)
def test_text_that_is_not_one_address_is_none(text: str) -> None:
    assert parse_address(text) is None


@pytest.mark.parametrize(
    "text",
    [
        *(text for text in NO_ADDRESS if text != "127.0.0.1/32"),
        "10.0.0.0/255.0.0.0",  # a netmask
        "10.0.0.0/0.255.255.255",  # a hostmask: netaddr reads /8, and somebody meant it otherwise
        "10.0.0.0/255.0.255.0",
        "10/8",
        "10.0/16",
        "10.0.0.0/08",
        "10.0.0.0/+8",
        "10.0.0.0/-8",
        "10.0.0.0/ 8",
        "10.0.0.0/8 ",
        "10.0.0.0 /8",
        "10.0.0.0/",
        "10.0.0.0/8/8",
        "10.0.0.0/33",
        "10.0.0.0/0x8",
        "10.0.0.0/\u0668",
        "10.0.0.0/\uff18",
        "2001:db8::/129",
        "fe80::%eth0/64",
        "fe80::/64%eth0",
        "fe80::1%eth0",
        "10.0.0.1-10.0.0.9",
        "10.0.0.*",
        "*",
        "0",
        "/",
    ],
)
def test_text_that_is_not_one_network_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a network"):
        parse_network(text)


@pytest.mark.parametrize(
    "text, network, address",
    [
        ("10.0.0.1/8", "10.0.0.0/8", "10.0.0.1"),
        ("192.0.2.255/31", "192.0.2.254/31", "192.0.2.255"),
        ("2001:db8::1/64", "2001:db8::/64", "2001:db8::1"),
        ("0.0.0.1/0", "0.0.0.0/0", "0.0.0.1"),
    ],
)
def test_host_bits_are_refused_with_both_ways_out(text: str, network: str, address: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_network(text)
    told = f"{text!r} has host bits set: write {network} for the network, or {address} for the one address"
    assert str(caught.value) == told


@pytest.mark.parametrize("text, bits", [("10.0.0.0/33", 32), ("2001:db8::/129", 128), ("10.0.0.0/08", 32)])
def test_the_error_for_a_wrong_prefix_names_the_range(text: str, bits: int) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_network(text)
    assert str(caught.value) == f"{text!r} is not a network (prefix is 0–{bits})"


@pytest.mark.parametrize(
    "text, normalised",
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1/32", "192.0.2.1"),
        ("2001:DB8:0::/48", "2001:db8::/48"),
        ("2001:db8::1/128", "2001:db8::1"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_a_network_is_normalized(text: str, normalised: str) -> None:
    assert parse_network(text)[0] == normalised
    assert parse_network(normalised) == parse_network(text)


@pytest.mark.parametrize(
    "networks, inside, outside",
    [
        (
            ["10.0.0.0/8"],
            ["10.0.0.0", "10.255.255.255", "::ffff:10.1.1.1"],
            ["9.255.255.255", "11.0.0.0", "::10.0.0.0"],
        ),
        (["::/0"], ["::", "::1", "ffff::"], ["1.2.3.4", "::ffff:1.2.3.4", "255.255.255.255"]),
        (["0.0.0.0/0"], ["0.0.0.1", "255.255.255.255", "::ffff:1.1.1.1"], ["::", "::1", "ffff::"]),
        (["::ffff:10.0.0.0/104"], ["10.1.1.1"], ["11.0.0.0", "::10.1.1.1"]),
        (["10.0.0.0/25", "10.0.0.128/25"], ["10.0.0.127", "10.0.0.128"], ["10.0.1.0"]),  # neighbours
        (["10.0.0.0/8", "10.1.0.0/16"], ["10.1.0.0", "10.200.0.0"], ["11.0.0.0"]),  # one within the other
        (["255.255.255.255", "::"], ["255.255.255.255", "::"], ["255.255.255.254", "::1"]),  # neighbours only here
        ([], [], ["0.0.0.1", "::"]),
    ],
)
def test_an_allowlist_contains_the_addresses_of_its_networks(
    networks: list[str], inside: list[str], outside: list[str]
) -> None:
    allowed = parse_allowlist(networks)
    assert [text for text in inside if position(text) not in allowed] == []
    assert [text for text in outside if position(text) in allowed] == []


def test_an_allowlist_preserves_order_and_drops_duplicates() -> None:
    networks = ["192.0.2.0/24", "10.0.0.0/8", "::ffff:10.0.0.0/104", "192.0.2.0/24"]
    assert parse_allowlist(networks).networks == ("192.0.2.0/24", "10.0.0.0/8")


def test_an_allowlist_names_the_first_that_is_no_network() -> None:
    with pytest.raises(ConfigurationError, match=r"'10\.1'"):
        parse_allowlist(["10.0.0.0/8", "10.1", "nonsense"])


def networks_of(version: Literal[4, 6], bits: int, base: int) -> st.SearchStrategy[IPNetwork]:
    """Return networks crowded into 12 bits above *base*, so that they overlap, touch and nest."""
    prefixes = st.integers(bits - 12, bits) | st.integers(0, bits)
    numbers = st.builds(lambda low, prefix: (base + low, prefix), st.integers(0, 4095), prefixes)
    return numbers.map(lambda pair: IPNetwork((pair[0] >> bits - pair[1] << bits - pair[1], pair[1]), version=version))


def network_named(network: IPNetwork) -> str:
    return f"{network.ip}/{network.prefixlen}"


BASES = {4: 0x0A000000, 6: 0x20010DB8 << 96}
NETWORKS = networks_of(4, 32, BASES[4]) | networks_of(6, 128, BASES[6])
ADDRESSES = st.builds(
    lambda version, low: IPAddress(BASES[version] + low, version), st.sampled_from([4, 6]), st.integers(-1, 4096)
) | st.builds(IPAddress, st.integers(0, 2**32 - 1), st.just(4))


@given(st.lists(NETWORKS, max_size=8), st.lists(ADDRESSES, min_size=1, max_size=8))
def test_an_allowlist_agrees_with_a_linear_search(networks: list[IPNetwork], addresses: list[IPAddress]) -> None:
    allowed = parse_allowlist(network_named(network) for network in networks)
    for address in addresses:
        expected = any(address in network for network in networks)
        assert (position(str(address)) in allowed) is expected, (networks, address)


@given(st.integers(0, 2**32 + 2**128 - 1))
def test_a_position_is_formatted_and_parsed_back(place: int) -> None:
    read = position(format_address(place))
    mapped = place - 2**32 >> 32 == 0xFFFF  # the mapped range has no place of its own
    assert read == (place & 0xFFFFFFFF if mapped else place)


@given(st.text(max_size=70) | st.from_regex(r"[0-9a-f.:/%]{0,40}"))
def test_parsing_raises_only_the_documented_error(text: str) -> None:
    assert parse_address(text) is None or isinstance(parse_address(text), int)
    try:
        parse_network(text)
    except ConfigurationError:
        return
    assert parse_address(text.partition("/")[0]) is not None


@pytest.mark.parametrize(
    "one, other, same",
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::1", "0.0.0.1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
    ],
)
def test_a_block_is_an_ipv4_address_or_an_ipv6_64(one: str, other: str, *, same: bool) -> None:
    assert (address_block(position(one)) == address_block(position(other))) is same


def fastest(*works: Callable[[], object]) -> list[float]:
    """Return the seconds that each work takes undisturbed: the best of many turns, and without a coverage tracer."""
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        turns = [[timeit(work, number=500) for work in works] for _ in range(100)]
    finally:
        sys.settrace(tracer)
    return [min(seconds) / 500 for seconds in zip(*turns, strict=True)]


def test_a_thousand_networks_are_matched_by_little_more_than_one_bisection() -> None:
    """The bar is a ratio: half a microsecond on a fast machine is more on a busy one."""
    allowed = parse_allowlist(f"10.{number >> 8}.{number & 255}.0/25" for number in range(1000))
    starts = [position(f"10.{number >> 8}.{number & 255}.0") for number in range(1000)]
    for text, is_allowed in (("10.3.200.1", True), ("10.3.200.129", False)):
        address = position(text)
        assert (address in allowed) is is_allowed
        look, bisection = fastest(lambda: address in allowed, lambda: bisect_right(starts, address))  # noqa: B023 - at once
        assert look < 3 * bisection
