import pytest
from hypothesis import given
from hypothesis import strategies as st

from machpay_gateway.core.network.address import format_address, parse_allowlist
from machpay_gateway.core.network.forwarded import client_address

TRUSTED = parse_allowlist(["10.0.0.0/8", "2001:db8:aaaa::/48"])
LIST, FORWARDED = b"x-forwarded-for", b"forwarded"


def client(peer: str, *values: str, header: bytes = LIST) -> str | None:
    address = client_address(peer, [value.encode("latin-1") for value in values], TRUSTED, header)
    return None if address is None else format_address(address)


@pytest.mark.parametrize(
    "peer, values, expected",
    [
        ("10.0.0.1", ["1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", ["1.2.3.4, 10.0.0.2"], "1.2.3.4"),  # trusted hops are peeled from the right
        ("10.0.0.1", ["6.6.6.6, 1.2.3.4, 10.0.0.2"], "1.2.3.4"),  # left of an untrusted hop is the client's own claim
        ("10.0.0.1", ["10.0.0.9, 1.2.3.4"], "1.2.3.4"),  # a claim to be trusted is a claim like any other
        ("9.9.9.9", ["1.2.3.4"], "9.9.9.9"),  # an untrusted peer cannot speak for others
        ("9.9.9.9", ["10.0.0.2"], "9.9.9.9"),
        ("10.0.0.1", [], "10.0.0.1"),  # a trusted peer that calls by itself
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),  # all trusted: the farthest of them
        ("10.0.0.1", ["6.6.6.6", "1.2.3.4"], "1.2.3.4"),  # repeated headers are one list, in their order
        ("10.0.0.1", ["1.2.3.4", "10.0.0.2"], "1.2.3.4"),
        ("10.0.0.1", ["6.6.6.6,1.2.3.4"], "1.2.3.4"),  # without a blank
        ("10.0.0.1", ["6.6.6.6 \t,\t 1.2.3.4 "], "1.2.3.4"),
        ("10.0.0.1", ["1.2.3.4:5678"], "1.2.3.4"),  # some proxies write the port
        ("10.0.0.1", ["[2001:db8::1]:5678"], "2001:db8::1"),
        ("10.0.0.1", ["[2001:db8::1]"], "2001:db8::1"),
        ("10.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("10.0.0.1", ["fe80::1%eth0"], "fe80::1"),
        ("10.0.0.1", ["::ffff:1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", ["1.2.3.4, ::ffff:10.0.0.2"], "1.2.3.4"),  # a mapped hop is trusted as what it is
        ("::ffff:10.0.0.1", ["1.2.3.4"], "1.2.3.4"),  # and so is a mapped peer, as dual-stack sockets show it
        ("2001:db8:aaaa::1", ["1.2.3.4"], "1.2.3.4"),
        ("2001:db8:bbbb::1", ["1.2.3.4"], "2001:db8:bbbb::1"),
        ("testclient", ["1.2.3.4"], None),
        ("", ["1.2.3.4"], None),  # a peer without an address is nobody's word
    ],
)
def test_the_client_is_the_first_untrusted_hop_from_the_right(
    peer: str, values: list[str], expected: str | None
) -> None:
    assert client(peer, *values) == expected


@pytest.mark.parametrize(
    "value",
    [
        "unknown",
        "_hidden",
        "1.2.3.4, unknown",
        "1.2.3.4, ",
        "1.2.3.4, nonsense",
        "1.2.3.4, unknown, 10.0.0.2",
        "1.2.3.4 5.6.7.8",
        "1.2.3.4:port",
        "1.2.3.4:123456",
        "1.2.3",
        "[1.2.3.4]",
        "[2001:db8::1",
        "2001:db8::1]",
        "[2001:db8::1]5678",
        "[]",
        "010.1.1.1",
        '"1.2.3.4"',
        "1.2.3.4;",
        "1.2.3.4\x00",
        "\xff",
        "http://1.2.3.4",
        "1" * 10_000,
    ],
)
def test_an_unreadable_hop_makes_the_client_unreadable(value: str) -> None:
    # Never the hop before it, which the client may have written, nor the proxy, which may be on an allowlist.
    assert client("10.0.0.1", value) is None


@pytest.mark.parametrize(
    "values, expected",
    [
        (["for=192.0.2.60;proto=http;by=203.0.113.43"], "192.0.2.60"),  # RFC 7239 §4
        (["for=192.0.2.43, for=198.51.100.17"], "198.51.100.17"),
        (["for=192.0.2.43, for=10.0.0.17"], "192.0.2.43"),
        (['For="[2001:db8:cafe::17]:4711"'], "2001:db8:cafe::17"),
        (['for="[2001:db8:cafe::17]"'], "2001:db8:cafe::17"),
        (['for="192.0.2.43:47011"'], "192.0.2.43"),  # RFC 7239 §6.2
        (['for=192.0.2.43, for="[2001:db8:cafe::17]"', "for=10.0.0.2"], "2001:db8:cafe::17"),  # RFC 7239 §7.1
        (["proto=https;FOR=192.0.2.60"], "192.0.2.60"),  # names in any case, in any order
        (["for=192.0.2.60 ; proto=https"], "192.0.2.60"),
        (["for=6.6.6.6,for=192.0.2.60"], "192.0.2.60"),
        ([r'for="192.0.2.6\0"'], "192.0.2.60"),  # a quoted pair is the character (RFC 9110 §5.6.4)
        (['for=192.0.2.60;host="a,b;for=6.6.6.6"'], "192.0.2.60"),  # separators within quotes separate nothing
        (['for=192.0.2.60;host="a\\",for=6.6.6.6"'], "192.0.2.60"),
        (['for="_gazonk:_port", for=192.0.2.60'], "192.0.2.60"),
        (['for="192.0.2.60:_hidden"'], "192.0.2.60"),  # an obfuscated port
        (["for=192.0.2.60;ext=1;proto=https"], "192.0.2.60"),
        ([""], "10.0.0.1"),
        # RFC 7239 §4: forwarded-element = [ forwarded-pair ] *( ";" [ forwarded-pair ] )
        (["for=192.0.2.60;"], "192.0.2.60"),
        (["for=6.6.6.6, for=192.0.2.60;"], "192.0.2.60"),
        (["for=192.0.2.60;;proto=https"], "192.0.2.60"),
        ([";for=192.0.2.60"], "192.0.2.60"),
        (["for=192.0.2.60;, for=10.0.0.2"], "192.0.2.60"),
        ([" ,for=6.6.6.6,, for=192.0.2.60 , ,"], "192.0.2.60"),  # empty elements say nothing (RFC 9110 §5.6.1.2)
    ],
)
def test_forwarded_is_parsed_as_in_rfc_7239(values: list[str], expected: str) -> None:
    assert client("10.0.0.1", *values, header=FORWARDED) == expected


@pytest.mark.parametrize(
    "value",
    [
        "for=unknown",
        'for="_gazonk"',
        "for=_SEVKISEK",
        "for=192.0.2.43, for=unknown",
        "for=192.0.2.43, proto=https",  # an element that does not say for whom
        "by=192.0.2.43",
        "192.0.2.43",
        "for=",
        "for",
        "=192.0.2.43",
        "for=192.0.2.43 for=192.0.2.44",
        "for=192.0.2.43;for=192.0.2.44",  # each parameter at most once an element (RFC 7239 §4)
        "for=192.0.2.43;FOR=192.0.2.44",
        "for=[2001:db8::1]",  # brackets are no token: IPv6 must be quoted (RFC 7239 §6)
        "for=192.0.2.43:80",
        'for="192.0.2.43',
        'for=192.0.2.43"',
        'for="192.0.2.43"x',
        "for = 192.0.2.43",
        'for=6.6.6.6, for="192.0.2.43',
        'x="for=6.6.6.6, for=192.0.2.43',
        'for="[2001:db8::1]:123456"',
        "for=\xff",
    ],
)
def test_a_malformed_or_silent_forwarded_makes_the_client_unreadable(value: str) -> None:
    assert client("10.0.0.1", value, header=FORWARDED) is None


def test_a_malformed_forwarded_counts_as_a_whole() -> None:
    # A client's own part must not be able to hide what the proxies behind it appended: nor may it be half believed.
    assert client("10.0.0.1", 'for="6.6.6.6', "for=192.0.2.60", header=FORWARDED) is None


def test_only_the_configured_headers_syntax_is_read() -> None:
    assert client("10.0.0.1", "for=192.0.2.60") is None
    assert client("10.0.0.1", "192.0.2.60", header=FORWARDED) is None
    assert client("10.0.0.1", "192.0.2.60", header=b"cf-connecting-ip") == "192.0.2.60"


def test_without_trusted_proxies_the_peer_is_the_client() -> None:
    assert client_address("10.0.0.1", [b"1.2.3.4"], None, LIST) == 0x0A000001


HOPS = st.sampled_from(["1.2.3.4", "10.0.0.2", "unknown", "", "2001:db8::1", "x"])


@given(st.lists(HOPS, max_size=6), st.sampled_from(["1.2.3.4", "5.6.7.8:80", "2001:db8::7"]))
def test_a_client_cannot_change_the_hops_of_trusted_proxies(claims: list[str], seen: str) -> None:
    assert client("10.0.0.1", ", ".join([*claims, seen])) == client("10.0.0.1", seen)


@given(st.text(st.characters(max_codepoint=255), max_size=40), st.sampled_from([LIST, FORWARDED]))
def test_no_header_raises(value: str, header: bytes) -> None:
    client("10.0.0.1", value, header=header)
