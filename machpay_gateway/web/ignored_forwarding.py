"""A warning for forwarding headers that are ignored because their peer is not a trusted proxy.

Behind such a proxy all callers share its address, with one failure limit for all, and no allowlist matches. Operators
would not notice otherwise.
"""

import logging

from machpay_gateway.core.network.address import address_block, format_address, parse_address
from machpay_gateway.core.network.forwarded import UNIX_PEER

logger = logging.getLogger("machpay_gateway")

_MAX_LOGGED = 3  # address blocks: anybody may send such a header, and must not fill the log


class IgnoredForwarding:
    """Counts requests with an ignored header, and logs the first address blocks that send one. Mutable."""

    def __init__(self) -> None:
        """Begin without any."""
        self.count = 0
        self._logged: set[int | None] = set()

    def note(self, peer: str, header: bytes) -> None:
        """Count a request of *peer* with the ignored *header* (lower case)."""
        self.count += 1
        if len(self._logged) < _MAX_LOGGED:
            self._log(peer, header)

    def _log(self, peer: str, header: bytes) -> None:
        address = parse_address(peer)
        block = None if address is None else address_block(address)
        if block in self._logged:
            return
        self._logged.add(block)
        logger.warning(
            "A request from %s has the header %s, which is ignored: the address is not in trusted_proxies. If a proxy "
            "of yours is there, all callers behind it count as one address; set trusted_proxies to tell them apart. "
            "If a caller sends the header by itself, nothing needs to be done.",
            _describe(peer, address),
            header.decode("latin-1"),
        )


def _describe(peer: str, address: int | None) -> str:
    if address is not None:
        return format_address(address)
    return f'a Unix socket (as an address, "{UNIX_PEER}")' if peer == UNIX_PEER else "a peer without an address"
