"""Forwarding headers that are ignored, because the peer that sends them is not a trusted proxy.

Behind a proxy that is not trusted all callers share one address: its limits, its failures, and a place on no allowlist.
Nothing else would tell an operator.
"""

import logging

from machpay_gateway.core.network.address import address_block, format_address, parse_address

logger = logging.getLogger("machpay_gateway")

_MOST_TOLD = 3  # address blocks: anybody may send such a header, and must not fill the log


class IgnoredForwarding:
    """Counts requests with such a header, and logs the first address blocks that they come from. Mutable."""

    def __init__(self) -> None:
        """Begin with none."""
        self.count = 0
        self._told: set[int | None] = set()

    def note(self, peer: str, header: bytes) -> None:
        """Count a request of *peer* with the *header* of that name, in lower case."""
        self.count += 1
        if len(self._told) < _MOST_TOLD:
            self._log(peer, header)

    def _log(self, peer: str, header: bytes) -> None:
        address = parse_address(peer)
        block = None if address is None else address_block(address)
        if block in self._told:
            return
        self._told.add(block)
        logger.warning(
            "A request from %s has the header %s, which is ignored: the address is not in trusted_proxies. If a proxy "
            "of yours is there, all callers behind it count as one address; set trusted_proxies to tell them apart. "
            "If a caller sends the header by itself, nothing needs to be done.",
            "a peer without an address" if address is None else format_address(address),
            header.decode("latin-1"),
        )
