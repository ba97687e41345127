"""What rules for headers may say, and what they may not touch."""

import pytest

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.network.header_rules import parse_header_rules


@pytest.mark.parametrize(
    "rules, of_responses, message",
    [
        ({"set": {"X-MachPay-Tier": "gold"}}, False, "'X-MachPay-Tier' cannot be changed: the gateway says who"),
        ({"add": {"X_MachPay_Tier": "gold"}}, False, "who the caller is"),
        ({"remove": ["x-machpay-key-id"]}, False, "who the caller is"),
        ({"set": {"Content-Length": "0"}}, False, "it frames the message"),
        ({"set": {"content_length": "0"}}, False, "it frames the message"),
        ({"add": {"Transfer-Encoding": "chunked"}}, True, "it frames the message"),
        ({"remove": ["Connection"]}, True, "it frames the message"),
        ({"set": {"TE": "trailers"}}, False, "it frames the message"),
        ({"set": {"Upgrade": "h2c"}}, False, "it frames the message"),
        ({"set": {"Host": "a.test"}}, False, "use the setting host"),
        ({"remove": ["Via"]}, False, "via = false"),
        ({"set": {"X-Forwarded-For": "1.2.3.4"}}, False, "where a request comes from"),
        ({"set": {"Forwarded": "for=1.2.3.4"}}, False, "where a request comes from"),
        ({"set": {"X-Original-URL": "/admin"}}, False, "frameworks route by it"),
        ({"set": {"X-Request-Id": "1"}}, False, "the gateway writes it"),
        ({"remove": ["RateLimit"]}, True, "the gateway writes it"),
        ({"remove": ["Date"]}, True, "RFC 9110"),
        ({"set": {"Access-Control-Allow-Origin": "*"}}, True, r"use \[cors\]"),
        ({"add": {"Set-Cookie": "machpay-session=1"}}, True, "one of the gateway's own"),
        ({"set": {"X A": "1"}}, False, "'X A' is not the name of a header"),
        ({"set": {"X-A": "a\r\nX-B: 1"}}, False, "the value of 'X-A' is not visible ASCII"),
        ({"set": {"X-A": ""}}, False, "the value of 'X-A' is not visible ASCII"),
        ({"set": {"X-A": 1}}, False, "the value of 'X-A' is not visible ASCII"),
        ({"set": ["X-A"]}, False, "set is a table"),
        ({"remove": "X-A"}, False, "remove is a list"),
        ({"replace": {}}, False, "is not a table of set, add and remove"),
        ([], False, "is not a table of set, add and remove"),
    ],
)
def test_headers_of_the_gateways_are_refused(rules: object, of_responses: bool, message: str) -> None:  # noqa: FBT001 - a row
    with pytest.raises(ConfigurationError, match=message):
        parse_header_rules(rules, of_responses=of_responses)


def test_later_rules_follow_earlier_ones() -> None:
    earlier = parse_header_rules({"set": {"X-A": "1", "X-B": "1"}, "remove": ["X-C"]})
    both = earlier.then(parse_header_rules({"set": {"x-a": "2"}, "add": {"X-B": "2"}}))
    start = b"GET / HTTP/1.1\r\nX-A: 0\r\nX-C: 0\r\nX-D: 0\r\n"
    assert both.apply(start) == b"GET / HTTP/1.1\r\nX-D: 0\r\nX-B: 1\r\nx-a: 2\r\nX-B: 2\r\n"


def test_values_are_not_shown() -> None:
    assert "secret" not in repr(parse_header_rules({"set": {"Authorization": "Bearer secret"}}))
