"""Who is behind whom: an upstream is told what we have seen, and what a trusted peer has."""

from collections.abc import Sequence
from typing import Unpack

import pytest

from machpay_gateway.settings import Options
from tests.proxy.harness import Upstream, fields_of, proxied, request
from tests.proxy.strict import Seen, Strict

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # how bytes are read is no matter of the loop

_TRUSTED: Options = {"trusted_proxies": ["127.0.0.0/8", "10.0.0.0/8"]}


async def _sent_on(*fields: str, **options: Unpack[Options]) -> Seen:
    strict = Strict()
    async with Upstream(strict) as upstream, proxied(upstream, **options) as rig, rig.client() as client:
        await client.send(request("GET", "/public/x", *fields))
        assert (await client.answer())[0] == 200
        return strict.requests[0]


@pytest.mark.parametrize(
    "fields, expected",
    [
        ([], b"127.0.0.1"),
        (["X-Forwarded-For: 1.2.3.4"], b"1.2.3.4, 127.0.0.1"),
        (["X-Forwarded-For: 6.6.6.6, 1.2.3.4"], b"1.2.3.4, 127.0.0.1"),  # left of a stranger is the stranger's claim
        (["X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 1.2.3.4"], b"1.2.3.4, 127.0.0.1"),
        (["X-Forwarded-For: 1.2.3.4", "x-forwarded-for: 10.0.0.1"], b"1.2.3.4, 10.0.0.1, 127.0.0.1"),
        (["X-Forwarded-For: 1.2.3.4, 10.0.0.1"], b"1.2.3.4, 10.0.0.1, 127.0.0.1"),
        (["X-Forwarded-For: ::FFFF:1.2.3.4"], b"1.2.3.4, 127.0.0.1"),
        (["X-Forwarded-For: 2001:DB8::1"], b"2001:db8::1, 127.0.0.1"),
        (["X-Forwarded-For: nonsense"], b"unknown, 127.0.0.1"),
        (["X-Forwarded-For: 1.2.3.4,"], b"unknown, 127.0.0.1"),
        (["X-Forwarded-For:"], b"127.0.0.1"),
        (["Forwarded: for=1.2.3.4"], b"127.0.0.1"),  # not the one that is configured
        (["X-Real-IP: 1.2.3.4"], b"127.0.0.1"),
        (["X_Forwarded_For: 1.2.3.4"], b"127.0.0.1"),
    ],
)
async def test_a_trusted_peer_names_the_client(fields: Sequence[str], expected: bytes) -> None:
    seen = await _sent_on(*fields, **_TRUSTED)
    assert seen.values(b"x-forwarded-for") == [expected]


@pytest.mark.parametrize("field", ["X-Forwarded-For: 1.2.3.4", "Forwarded: for=1.2.3.4", "X-Real-IP: 1.2.3.4"])
async def test_forwarding_headers_of_untrusted_peers_are_ignored(field: str) -> None:
    seen = await _sent_on(field, "X-Forwarded-Proto: https", "X-Forwarded-Host: other.test", "X-Request-Id: mine")
    assert seen.values(b"x-forwarded-for") == [b"127.0.0.1"]
    assert seen.values(b"x-forwarded-proto") == [b"http"]
    assert seen.values(b"x-forwarded-host") == [b"api.test"]
    assert seen.values(b"forwarded") == [b"for=127.0.0.1;proto=http;host=api.test"]
    assert seen.values(b"x-real-ip") == []
    assert seen.id != b"mine"


@pytest.mark.parametrize(
    "fields, expected",
    [
        (["Forwarded: for=1.2.3.4"], b"1.2.3.4, 127.0.0.1"),
        (['Forwarded: for="[2001:db8::1]:80";proto=https'], b"2001:db8::1, 127.0.0.1"),
        (["Forwarded: for=6.6.6.6", "Forwarded: for=1.2.3.4, for=10.0.0.1"], b"1.2.3.4, 10.0.0.1, 127.0.0.1"),
        (["Forwarded: for=_hidden"], b"unknown, 127.0.0.1"),
        (["X-Forwarded-For: 1.2.3.4"], b"127.0.0.1"),
    ],
)
async def test_the_client_address_header_is_configurable(fields: Sequence[str], expected: bytes) -> None:
    seen = await _sent_on(*fields, **(_TRUSTED | {"client_ip_header": "Forwarded"}))
    assert seen.values(b"x-forwarded-for") == [expected]
    assert len(seen.values(b"forwarded")) == 1


@pytest.mark.parametrize(
    "fields, proto, host",
    [
        (["X-Forwarded-Proto: https", "X-Forwarded-Host: shop.test:8443"], b"https", b"shop.test:8443"),
        (["X-Forwarded-Proto: javascript", "X-Forwarded-Host: a b"], b"http", b"api.test"),
        (["X-Forwarded-Proto: https, http", "X-Forwarded-Host: a.test, b.test"], b"http", b"api.test"),
        (["X-Forwarded-Proto: https", "X-Forwarded-Proto: https"], b"http", b"api.test"),  # twice is worth nothing
        (["X-Forwarded-Host: a.test", "X-Forwarded-Host: b.test"], b"http", b"api.test"),
        (['X-Forwarded-Host: a";for=1.2.3.4'], b"http", b"api.test"),
    ],
)
async def test_a_trusted_peer_names_scheme_and_host(fields: Sequence[str], proto: bytes, host: bytes) -> None:
    seen = await _sent_on(*fields, **_TRUSTED)
    assert seen.values(b"x-forwarded-proto") == [proto]
    assert seen.values(b"x-forwarded-host") == [host]
    assert seen.values(b"host") == [b"api.test"]  # what the upstream routes by stays as it was


@pytest.mark.parametrize(
    "fields, port, prefix",
    [
        (["X-Forwarded-Port: 8443", "X-Forwarded-Prefix: /shop/%C3%A9"], [b"8443"], [b"/shop/%C3%A9"]),
        (["X-Forwarded-Port: 8443, 80", "X-Forwarded-Prefix: shop"], [], []),
        (["X-Forwarded-Port: x", "X-Forwarded-Prefix: /a, /b"], [], []),
        (["X-Forwarded-Port: 1", "X-Forwarded-Port: 2", "X-Forwarded-Prefix: /a", "X-Forwarded-Prefix: /b"], [], []),
        (["X_Forwarded_Port: 8443", "X-Forwarded_Prefix: /a"], [], []),
    ],
)
async def test_a_trusted_peer_names_port_and_prefix(
    fields: Sequence[str], port: list[bytes], prefix: list[bytes]
) -> None:
    seen = await _sent_on(*fields, **_TRUSTED)
    assert (seen.values(b"x-forwarded-port"), seen.values(b"x-forwarded-prefix")) == (port, prefix)
    seen = await _sent_on(*fields)
    assert (seen.values(b"x-forwarded-port"), seen.values(b"x-forwarded-prefix")) == ([], [])
    passed: Options = {"proxy": {"pass_headers": ["X-Forwarded-Port"]}}
    seen = await _sent_on("X-Forwarded-Port: 1", "X-Forwarded-Prefix: /a", **passed)
    assert (seen.values(b"x-forwarded-port"), seen.values(b"x-forwarded-prefix")) == ([b"1"], [])


async def test_a_trusted_peer_names_the_request() -> None:
    strict = Strict()
    async with Upstream(strict) as upstream, proxied(upstream, **_TRUSTED) as rig, rig.client() as client:
        await client.send(request("GET", "/public/x", "X-Request-Id: abc.1"))
        assert fields_of((await client.answer())[1])["x-request-id"] == ["abc.1"]
        assert strict.requests[0].id == b"abc.1"
        for twice in (["X-Request-Id: a", "X-Request-Id: b"], ["X-Request-Id: a b"], [f"X-Request-Id: {'a' * 129}"]):
            await client.send(request("GET", "/public/x", *twice))
            assert fields_of((await client.answer())[1])["x-request-id"][0] not in {"a", "b", "a b", "a" * 129}


async def test_an_allowlist_applies_to_the_client_behind_a_trusted_peer() -> None:
    async with Upstream() as upstream, proxied(upstream, **_TRUSTED) as rig, rig.client() as client:
        secret = await rig.secret(allowed_ips=["1.2.3.0/24"])
        for address, expected in (("1.2.3.4", 200), ("6.6.6.6", 403), ("1.2.3.4, 6.6.6.6", 403), ("nonsense", 403)):
            await client.send(request("GET", "/v1/x", f"X-Forwarded-For: {address}", secret=secret))
            assert (await client.answer())[0] == expected
