"""A forwarding header of a peer that is not trusted is ignored, and an operator hears of it without any noise."""

import logging

import pytest

from machpay_gateway import MachPayAuth
from machpay_gateway.core.network.address import parse_allowlist
from machpay_gateway.web.request_facts import Trust, request_facts
from tests.applications import ok
from tests.gateways import guarded
from tests.proxy.harness import Upstream, proxied, request

NAME = b"x-forwarded-for"


def ask(trust: Trust, peer: str, *headers: tuple[bytes, bytes]) -> None:
    scope = {"type": "http", "method": "GET", "path": "/", "headers": list(headers), "client": (peer, 1)}
    request_facts(scope, trust, iter([b"id"]))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_the_warning_names_the_peer_the_header_and_the_setting(caplog: pytest.LogCaptureFixture) -> None:
    ask(Trust(), "192.0.2.1", (NAME, b"203.0.113.7"))
    (warning,) = warnings(caplog)
    for word in ("192.0.2.1", "x-forwarded-for", "trusted_proxies", "one address"):
        assert word in warning
    assert "203.0.113.7" not in warning  # what a stranger claims is none of the log's


@pytest.mark.parametrize(
    "peers, logged, count",
    [
        (["192.0.2.1"] * 100, 1, 100),
        ([f"192.0.2.{number}" for number in range(100)], 3, 100),  # strangers do not fill the log
        (["2001:db8::1", "2001:db8::2"], 1, 2),
        ([""], 1, 1),
        (["10.0.0.1"], 0, 0),  # trusted
    ],
)
def test_few_address_blocks_are_logged_and_all_requests_counted(
    caplog: pytest.LogCaptureFixture, peers: list[str], logged: int, count: int
) -> None:
    trust = Trust(parse_allowlist(["10.0.0.0/8"]))
    for peer in peers:
        ask(trust, peer, (NAME, b"203.0.113.7"))
        ask(trust, peer, (b"x-other", b"1"))
    assert len(warnings(caplog)) == logged
    assert trust.ignored.count == count


async def test_the_middleware_and_the_proxy_count_the_same_way(caplog: pytest.LogCaptureFixture) -> None:
    async with guarded(ok) as api:
        assert isinstance(api.app, MachPayAuth)
        await api.client().get("/healthz", headers={"X-Forwarded-For": "203.0.113.7"})
        assert api.gateway.trust.ignored.count == 1
    async with Upstream() as upstream, proxied(upstream) as rig, rig.client() as client:
        for fields in ((), ("X-Forwarded-For: 203.0.113.7",), ("X-Forwarded-For: 203.0.113.7",)):
            await client.send(request("GET", "/public/x", *fields))
            assert (await client.answer())[0] == 200
        assert rig.gateway.trust.ignored.count == 2
    assert len(warnings(caplog)) == 2  # one of each process
