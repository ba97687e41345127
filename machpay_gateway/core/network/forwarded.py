"""The client's address behind proxies: forwarding headers are read from the right.

Only a trusted peer's header counts, and only the one that is configured. Each proxy appends the address of its peer, so
everything left of an untrusted hop is the client's own claim (RFC 7239 §8.1).
"""

import re
from collections.abc import Iterator, Sequence

from machpay_gateway.core.network.address import Allowlist, parse_address

UNIX_PEER = "unix:"  # the peer of a Unix socket, which has no address; the same text in `trusted_proxies`

# RFC 7239 §4: forwarded-pair = token "=" ( token / quoted-string ), joined by ";", elements by ",".
_PAIR = re.compile(r"""([!#$%&'*+.^_`|~0-9A-Za-z-]+)=([!#$%&'*+.^_`|~0-9A-Za-z-]+|"(?:[^"\\]|\\.)*")""")
_NODE = re.compile(r"(?:\[(?P<six>[^\]]+)\]|(?P<four>[^:\[\]]+))(?::(?P<port>[0-9]{1,5}|_[0-9A-Za-z._-]+))?")

_LONGEST_NODE = 128  # an address of 45 characters, brackets, a port or its obfuscated name


def is_trusted_proxy(peer: str, proxies: Allowlist | None) -> bool:
    """Return whether *peer* is a trusted proxy; one without an address is only if Unix sockets are trusted."""
    if proxies is None:
        return False
    address = parse_address(peer)
    return address in proxies if address is not None else proxies.has_unix and peer == UNIX_PEER


def client_address(peer: str, values: Sequence[bytes], trusted: Allowlist | None, header: bytes) -> int | None:
    """Return the address of the client behind *peer*, or None when it is unreadable.

    *values* are the configured *header*'s values in their order in the request; they only count if *peer* is *trusted*.
    """
    address = parse_address(peer)
    if not values or trusted is None or not is_trusted_proxy(peer, trusted):
        return address
    for address in _hops(values, trusted, header):  # noqa: B007 - the last one counts
        pass
    return address


def forwarding_chain(
    peer: str, values: Sequence[bytes], trusted: Allowlist | None, header: bytes
) -> tuple[int | None, ...]:
    """Return the addresses from the client to *peer*, for the forwarding header to the next server."""
    address = parse_address(peer)
    if not values or trusted is None or not is_trusted_proxy(peer, trusted):
        return (address,)
    return (*reversed(tuple(_hops(values, trusted, header))), address)


def _hops(values: Sequence[bytes], trusted: Allowlist, header: bytes) -> Iterator[int | None]:
    """Yield the addresses before the peer, from the right, down to the first that is not *trusted*."""
    text = b",".join(values).decode("latin-1")
    for hop in _forwarded_hops(text) if header == b"forwarded" else _listed_hops(text):
        address = _node_address(hop)
        yield address
        if address is None or address not in trusted:
            return


def _listed_hops(text: str) -> Iterator[str]:
    while text:
        # An empty hop is unreadable. To skip it would be to trust what precedes it, the client's own claim.
        text, _, hop = text.rpartition(",")
        yield hop.strip(" \t")


def _forwarded_hops(text: str) -> Iterator[str]:
    """Yield the `for` of each element from the right; one unreadable hop if the field is malformed.

    Empty pairs (RFC 7239 §4) and empty elements (RFC 9110 §5.6.1.2) are valid and ignored.
    """
    elements: list[dict[str, str]] = [{}]
    at = _skip_blank(text, 0)
    while at < len(text):
        if text[at] == ",":
            elements.append({})
            at = _skip_blank(text, at + 1)
            continue
        if text[at] != ";":
            pair = _PAIR.match(text, at)
            if pair is None or pair[1].lower() in elements[-1]:
                yield ""
                return
            elements[-1][pair[1].lower()] = _unquote(pair[2])
            at = _skip_blank(text, pair.end())
            if at < len(text) and text[at] not in ",;":
                yield ""
                return
            continue
        at = _skip_blank(text, at + 1)
    yield from (element.get("for", "") for element in reversed(elements) if element)


def _skip_blank(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t":
        at += 1
    return at


def _unquote(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def _node_address(node: str) -> int | None:
    """Parse an address as proxies write it: bare, `v4:port`, `[v6]` or `[v6]:port`; `unknown` and `_names` are None."""
    if len(node) > _LONGEST_NODE:
        return None
    if (address := parse_address(node)) is not None:
        return address
    if not (match := _NODE.fullmatch(node)):
        return None
    six, four = match["six"], match["four"]
    if six is not None:
        return parse_address(six) if ":" in six else None
    return parse_address(four)
