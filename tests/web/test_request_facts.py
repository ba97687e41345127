from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.network.address import format_address, format_address_or_none, parse_allowlist
from machpay_gateway.web.request_facts import Trust, request_facts, request_ids

PROXIES = parse_allowlist(["10.0.0.0/8"])
TRUST = Trust(PROXIES, b"x-forwarded-for")
PROXY, STRANGER = "10.0.0.1", "192.0.2.1"
Header = tuple[bytes, bytes]
ORIGIN, ASKS = (b"origin", b"https://app.example"), (b"access-control-request-method", b"POST")


def facts(
    *headers: Header,
    method: str = "GET",
    peer: str | None = STRANGER,
    trust: Trust = TRUST,
    **more: Any,  # noqa: ANN401 - as a scope holds it
) -> RequestFacts:
    scope = {"type": "http", "method": method, "path": "/v1/x", "raw_path": b"/v1/x", "headers": list(headers)}
    client = None if peer is None else (peer, 50000)
    return request_facts({**scope, "client": client, **more}, trust, request_ids(bytes(8)))


def address(*headers: Header, peer: str | None = PROXY, trust: Trust = TRUST) -> str | None:
    result = facts(*headers, peer=peer, trust=trust).address
    assert result is None or type(result) is int  # whatever a server calls its peer
    return None if result is None else format_address(result)


def test_every_authorization_header_is_kept_in_its_order() -> None:
    result = facts((b"authorization", b"Bearer a"), (b"x-other", b"1"), (b"authorization", b""))
    assert result.authorization == (b"Bearer a", b"")
    assert facts().authorization == ()


def test_only_the_path_that_routes_is_kept() -> None:
    assert facts(path="/app/v1/x", raw_path=b"/app/v1/x", root_path="/app").path == "/v1/x"
    assert facts(path="/a//b", raw_path=b"/a//b").path is None


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "M-SEARCH"])
def test_the_method_is_the_requests(method: str) -> None:
    assert facts(method=method).method == method


@pytest.mark.parametrize("method", ["post", "Post", "pOST"])
def test_a_method_is_uppercased_as_in_frameworks(method: str) -> None:
    # uvicorn on h11 passes it as it came; Django and Werkzeug (Quart, Flask) make it upper case and route by that.
    # ASGI: "The HTTP method name, uppercased." A lower-case one must not slip past the route's scopes.
    assert facts(method=method).method == "POST"


def test_a_websocket_handshake_is_a_get() -> None:
    scope = {"type": "websocket", "path": "/ws", "raw_path": b"/ws", "headers": [], "client": ("192.0.2.1", 1)}
    assert request_facts(scope, TRUST, request_ids(bytes(8))).method == "GET"


@pytest.mark.parametrize(
    "peer, headers, expected",
    [
        (PROXY, [(b"x-forwarded-for", b"1.2.3.4")], "1.2.3.4"),
        (PROXY, [(b"x-forwarded-for", b"6.6.6.6"), (b"x-forwarded-for", b"1.2.3.4")], "1.2.3.4"),
        (
            PROXY,
            [(b"x-forwarded-for", b"1.2.3.4"), (b"forwarded", b"for=6.6.6.6"), (b"x-real-ip", b"6.6.6.6")],
            "1.2.3.4",
        ),
        (PROXY, [(b"forwarded", b"for=6.6.6.6")], PROXY),  # one header is believed, and it is not here
        (PROXY, [(b"x-forwarded-for", b"unknown")], None),
        (PROXY, [], PROXY),
        (STRANGER, [(b"x-forwarded-for", b"1.2.3.4")], STRANGER),
        ("::ffff:10.0.0.1", [(b"x-forwarded-for", b"1.2.3.4")], "1.2.3.4"),
        ("testclient", [], None),
        (None, [], None),  # a Unix socket
        (None, [(b"x-forwarded-for", b"1.2.3.4")], None),
        ("", [], None),  # a Unix socket, as some servers tell it
        ("", [(b"x-forwarded-for", b"1.2.3.4")], None),
    ],
)
def test_the_address_is_the_peers_or_what_a_trusted_one_says(
    peer: str | None, headers: list[Header], expected: str | None
) -> None:
    assert address(*headers, peer=peer) == expected


@pytest.mark.parametrize(
    "server, expected",
    [
        (None, "1.2.3.4"),
        (["/run/app.sock", None], "1.2.3.4"),
        (["127.0.0.1", 8000], None),  # over TCP, after a reset of the client
    ],
)
def test_a_unix_sockets_peer_is_believed_where_they_are_trusted(
    server: list[object] | None, expected: str | None
) -> None:
    trust = Trust(replace(parse_allowlist([]), has_unix=True))
    believed = facts((b"x-forwarded-for", b"1.2.3.4"), peer=None, trust=trust, server=server).address
    assert format_address_or_none(believed) == expected


def test_the_trusted_header_is_configurable() -> None:
    trust = Trust(PROXIES, b"forwarded")
    assert address((b"forwarded", b"for=1.2.3.4"), (b"x-forwarded-for", b"6.6.6.6"), trust=trust) == "1.2.3.4"


def test_without_trusted_proxies_nobody_is_trusted() -> None:
    assert address((b"x-forwarded-for", b"1.2.3.4"), trust=Trust()) == PROXY


@pytest.mark.parametrize(
    "peer, values, accepted",
    [
        (PROXY, [b"abc-123"], True),
        (PROXY, [b"7f/+=._~A"], True),
        (PROXY, [b"a" * 128], True),
        ("::ffff:10.0.0.1", [b"abc"], True),
        (PROXY, [b"abc\t "], True),  # RFC 9110 §5.5: whitespace around a value is no part of it
        (STRANGER, [b"abc"], False),  # a stranger's would let it forge our log
        (None, [b"abc"], False),
        ("", [b"abc"], False),
        ("testclient", [b"abc"], False),
        (PROXY, [b""], False),
        (PROXY, [b"a" * 129], False),
        (PROXY, [b"a b"], False),
        (PROXY, [b"a\nb"], False),
        (PROXY, [b"abc\n"], False),
        (PROXY, [b'a"b'], False),
        (PROXY, ["é".encode()], False),
        (PROXY, [b"abc", b"abc"], False),  # which of them the next hop takes is not ours to know
        (PROXY, [b"abc", b"", b"def"], False),
    ],
)
def test_a_request_id_is_taken_from_trusted_peers_only(
    peer: str | None, values: list[bytes], *, accepted: bool
) -> None:
    result = facts(*((b"x-request-id", value) for value in values), peer=peer).request_id
    assert result == (values[0].strip() if accepted else b"0" * 24)


def test_no_request_id_is_taken_where_no_proxy_is_configured() -> None:
    assert facts((b"x-request-id", b"abc"), peer=PROXY, trust=Trust()).request_id == b"0" * 24


def test_minted_request_ids_differ_and_are_headers_of_fixed_form() -> None:
    minted = list(islice(request_ids(b"\xff\x00" * 4), 1000))
    assert len(set(minted)) == 1000
    assert minted[0] == b"ff00ff00ff00ff0000000000"
    assert next(request_ids(b"\x01" * 8)) not in minted


@pytest.mark.parametrize(
    "method, headers, expected",
    [
        ("OPTIONS", [ORIGIN, ASKS], "POST"),
        ("OPTIONS", [ASKS, ORIGIN], "POST"),
        ("OPTIONS", [ORIGIN, (b"access-control-request-method", b"M-SEARCH")], "M-SEARCH"),
        ("OPTIONS", [ORIGIN, (b"access-control-request-method", b"POST \t")], "POST"),
        ("OPTIONS", [ASKS], None),  # without an Origin it is no preflight (Fetch §3.2.2)
        ("OPTIONS", [ORIGIN], None),
        ("OPTIONS", [(b"origin", b""), ASKS], None),
        ("GET", [ORIGIN, ASKS], None),
        ("POST", [ORIGIN, ASKS], None),
        ("OPTIONS", [ORIGIN, ASKS, (b"authorization", b"Bearer x")], None),  # a preflight carries no credentials
        ("OPTIONS", [ORIGIN, ASKS, (b"authorization", b"")], None),
        ("OPTIONS", [ORIGIN, ASKS, ASKS], None),  # each comes once
        ("OPTIONS", [ORIGIN, ORIGIN, ASKS], None),
        ("OPTIONS", [ORIGIN, ASKS, ASKS, ASKS], None),
        ("OPTIONS", [ORIGIN, (b"access-control-request-method", b"")], None),
        ("OPTIONS", [ORIGIN, (b"access-control-request-method", b"post")], None),
        ("OPTIONS", [ORIGIN, (b"access-control-request-method", b"*")], None),
        ("OPTIONS", [ORIGIN, (b"access-control-request-method", b"GET, POST")], None),
        ("OPTIONS", [ORIGIN, (b"access-control-request-method", b"GET\n")], None),
        ("OPTIONS", [ORIGIN, (b"access-control-request-method", b"A" * 33)], None),
        ("OPTIONS", [ORIGIN, (b"access-control-request-method", b"\xc3\xa9")], None),
    ],
)
def test_a_preflight_asks_about_one_method_and_carries_no_credentials(
    method: str, headers: list[Header], expected: str | None
) -> None:
    assert facts(*headers, method=method).preflight_for == expected


def test_a_websocket_is_never_a_preflight() -> None:
    scope = {"type": "websocket", "path": "/ws", "headers": [ORIGIN, ASKS], "client": None}
    assert request_facts(scope, TRUST, request_ids(bytes(8))).preflight_for is None


@pytest.mark.parametrize(
    "value", [b"", b"\xff\x00", b"a" * 100_000, b",,,,", b'"', b"for=" * 1000, b"%eth0", b"[" * 99]
)
@pytest.mark.parametrize("name", [b"authorization", b"x-forwarded-for", b"forwarded", b"x-request-id", b"origin"])
@pytest.mark.parametrize("trust", [Trust(), TRUST, Trust(PROXIES, b"forwarded")], ids=["none", "list", "forwarded"])
def test_no_header_makes_it_raise(name: bytes, value: bytes, trust: Trust) -> None:
    facts((name, value), peer=PROXY, trust=trust, method="OPTIONS")
    facts((name, value), (name, value), ASKS, peer=PROXY, trust=trust, method="OPTIONS")
