"""Headers of the PROXY protocol: the ones of the specification, and those that are none."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machpay_gateway.core.network.proxy_protocol import (
    PassedConnection,
    ProxyHeaderError,
    header_length,
    parse_header,
)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
PORTS = struct.pack("!HH", 40000, 443)
INET = socket.inet_aton("203.0.113.9") + socket.inet_aton("192.0.2.1") + PORTS
INET6 = socket.inet_pton(socket.AF_INET6, "2001:db8::9") + socket.inet_pton(socket.AF_INET6, "2001:db8::1") + PORTS
MAPPED = (
    socket.inet_pton(socket.AF_INET6, "::ffff:203.0.113.9") + socket.inet_pton(socket.AF_INET6, "2001:db8::1") + PORTS
)
UNIX = bytes(216)
TLV = b"\x04\x00\x03abc"  # NOOP, which pads


def v2(command: int, kind: int, payload: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, kind, len(payload) if length is None else length) + payload


@pytest.mark.parametrize(
    "header, expected",
    [
        (b"PROXY TCP4 203.0.113.9 192.0.2.1 40000 443\r\n", PassedConnection("203.0.113.9")),
        (b"PROXY TCP6 2001:db8::9 2001:db8::1 40000 443\r\n", PassedConnection("2001:db8::9")),
        (b"PROXY UNKNOWN\r\n", PassedConnection("")),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", PassedConnection("")),
        (v2(0x21, 0x11, INET), PassedConnection("203.0.113.9")),
        (v2(0x21, 0x21, INET6), PassedConnection("2001:db8::9")),
        (v2(0x21, 0x21, MAPPED), PassedConnection("::ffff:203.0.113.9")),
        (v2(0x21, 0x11, INET + TLV), PassedConnection("203.0.113.9")),
        (v2(0x21, 0x31, UNIX), PassedConnection("")),
        (v2(0x21, 0x00, b""), PassedConnection("")),
        (v2(0x20, 0x00, b""), PassedConnection("", is_own=True)),
        (v2(0x20, 0x11, INET), PassedConnection("", is_own=True)),
        (v2(0x20, 0xFF, TLV), PassedConnection("", is_own=True)),
    ],
)
def test_a_header_says_whose_connection_it_is(header: bytes, expected: PassedConnection) -> None:
    assert [header_length(header[:end]) for end in range(len(header))].count(None) >= min(len(header), 16)
    assert header_length(header) == header_length(header + b"GET / HTTP/1.1\r\n") == len(header)
    assert parse_header(header) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",  # a handshake of TLS
        b"\r\n\r\nGET",
        b"PROXY",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 40000 443\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 40000\r\n",
        b"PROXY TCP4 2001:db8::9 192.0.2.1 40000 443\r\n",
        b"PROXY TCP6 203.0.113.9 2001:db8::1 40000 443\r\n",
        b"PROXY TCP4 203.0.113.999 192.0.2.1 40000 443\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 70000 443\r\n",
        b"PROXY TCP4  203.0.113.9 192.0.2.1 40000 443\r\n",
        b"PROXY UDP4 203.0.113.9 192.0.2.1 40000 443\r\n",
        b"PROXY UNKNOWN" + b" " * 107 + b"\r\n",
        b"PROXY " + b"1" * 200,
        v2(0x11, 0x11, INET),  # version 1
        v2(0x22, 0x11, INET),  # a command that there is not
        v2(0x21, 0x12, INET),  # datagrams
        v2(0x21, 0x41, INET),
        v2(0x21, 0x21, INET),  # too short for IPv6
        v2(0x21, 0x11, INET[:-1]),
        v2(0x21, 0x11, INET + bytes(5000)),
    ],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    try:
        length = header_length(data)
    except ProxyHeaderError:
        return
    if length is None:  # it is only a beginning
        assert data == b"PROXY"
        return
    with pytest.raises(ProxyHeaderError):
        parse_header(data[:length])


@given(
    st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\0\x0c"])
)
def test_any_bytes_are_a_header_the_beginning_of_one_or_refused(data: bytes, start: bytes) -> None:
    try:
        length = header_length(start + data)
        if length is not None and length <= len(start + data):
            parse_header((start + data)[:length])
    except ProxyHeaderError:
        pass
