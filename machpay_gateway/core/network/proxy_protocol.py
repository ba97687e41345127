"""The PROXY protocol, versions 1 and 2: a proxy says first of all, before TLS, whose connection it passes on.

The rules are those of HAProxy's specification, "The PROXY protocol Versions 1 & 2".
"""

import re
import struct
from typing import NamedTuple

from machpay_gateway.core.network.address import format_address, parse_address

MAX_HEADER_BYTES = 4096  # version 2 may have 64 KB of extensions, and real ones have less than 1 KB
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"  # §2.2
_FIXED = struct.Struct("!12sBBH")  # signature, version and command, family and transport, length
_V1_PREFIX = b"PROXY "
_MAX_V1_BYTES = 107  # §2.1: the longest line of version 1, with its CR LF
_V1 = re.compile(rb"PROXY (TCP4|TCP6) ([0-9A-Fa-f:.]{2,45}) ([0-9A-Fa-f:.]{2,45}) ([0-9]{1,5}) ([0-9]{1,5})\r\n")
_V1_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?\r\n")
_MAX_PORT = 65535
_LOCAL, _PROXY = 0x20, 0x21
_UNSPECIFIED, _INET, _INET6, _UNIX = range(4)  # the upper half of the byte of family and transport
_STREAM = 1  # the lower half
_ADDRESS_BYTES = {_INET: 12, _INET6: 36, _UNIX: 216}


class ProxyHeaderError(ValueError):
    """What arrived is not a header of the PROXY protocol."""


class PassedConnection(NamedTuple):
    """What a header says. *host* is the client's address, "" if the header has none.

    *is_own* is whether the proxy opened the connection itself, as for a health check: then the peer is the client.
    """

    host: str
    is_own: bool = False


def header_length(data: bytes) -> int | None:
    """Return the length of the header that *data* begins with, None while more of it is needed to tell.

    Raises ProxyHeaderError as soon as *data* cannot become a header.
    """
    if data.startswith(_SIGNATURE[: len(data)]):
        if len(data) < _FIXED.size:
            return None
        length = _FIXED.size + int.from_bytes(data[14:16], "big")
        if length > MAX_HEADER_BYTES:
            raise ProxyHeaderError(f"a header of {length} bytes")
        return length
    if not data.startswith(_V1_PREFIX[: len(data)]):
        raise ProxyHeaderError("no header")
    end = data.find(b"\n") + 1
    if end > _MAX_V1_BYTES or (not end and len(data) >= _MAX_V1_BYTES):
        raise ProxyHeaderError("a line that is too long")
    return end or None


def parse_header(data: bytes) -> PassedConnection:
    """Return what *data*, a whole header, says. Raises ProxyHeaderError."""
    return _parse_v1(data) if data.startswith(_V1_PREFIX) else _parse_v2(data)


def _parse_v1(line: bytes) -> PassedConnection:
    if _V1_UNKNOWN.fullmatch(line):
        return PassedConnection("")
    match = _V1.fullmatch(line)
    if match is None:
        raise ProxyHeaderError("a malformed line")
    hosts = [_host(text.decode(), is_ipv6=match[1] == b"TCP6") for text in match.group(2, 3)]
    if any(int(port) > _MAX_PORT for port in match.group(4, 5)):
        raise ProxyHeaderError("a port that is none")
    return PassedConnection(hosts[0])


def _host(text: str, *, is_ipv6: bool) -> str:
    if (":" in text) is not is_ipv6 or parse_address(text) is None:
        raise ProxyHeaderError("an address that is none")
    return text


def _parse_v2(data: bytes) -> PassedConnection:
    _, command, kind, _ = _FIXED.unpack_from(data)
    if command not in {_LOCAL, _PROXY}:
        raise ProxyHeaderError("an unknown version or command")
    if command == _LOCAL:  # §2.2: the rest is ignored
        return PassedConnection("", is_own=True)
    family, transport = kind >> 4, kind & 0xF
    if family == _UNSPECIFIED:
        return PassedConnection("")
    if family not in _ADDRESS_BYTES or transport != _STREAM:
        raise ProxyHeaderError("an unknown family or transport")
    addresses = data[_FIXED.size :]
    if len(addresses) < _ADDRESS_BYTES[family]:
        raise ProxyHeaderError("addresses that are too short")
    if family == _UNIX:
        return PassedConnection("")
    return PassedConnection(_packed_host(addresses[:4] if family == _INET else addresses[:16]))


def _packed_host(packed: bytes) -> str:
    number = int.from_bytes(packed, "big")
    return format_address(number if len(packed) == 4 else number + (1 << 32))  # noqa: PLR2004 - bytes of IPv4
