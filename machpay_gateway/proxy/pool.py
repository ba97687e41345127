"""The pool of an upstream's servers: which one gets the next request."""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from hashlib import blake2b
from itertools import count

from machpay_gateway.core.network.upstream_options import UpstreamOptions
from machpay_gateway.proxy.affinity import rendezvous_score
from machpay_gateway.proxy.upstream_server import DEFAULTS, UpstreamServer

_LEAST, _HASH = "least", "hash"


class ServerPool:
    """The servers of one upstream, which are interchangeable.

    *hash_by* is by what a request's server is chosen, None if that does not matter.
    """

    def __init__(
        self,
        servers: Iterable[UpstreamServer],
        *,
        options: UpstreamOptions = DEFAULTS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Choose among *servers*. *clock* is monotonic, in seconds."""
        self.servers = tuple(servers)
        self.hash_by = options.hash_by if options.balance == _HASH and len(self.servers) > 1 else None
        self._counts_load = options.balance == _LEAST
        self._is_even = len({server.weight for server in self.servers}) == 1
        self._clock = clock
        self._turns = count()
        self._credit = dict.fromkeys(self.servers, 0.0)  # of servers with different weights

    def pick(self, tried: Collection[UpstreamServer] = (), affinity: bytes = b"") -> UpstreamServer | None:
        """Return the server for the next request that is not in *tried*, None if there is none.

        With `balance = "least"` it is the one with the fewest requests in flight, with `round_robin` the next one, each
        by its weight; with `hash` the one that *affinity* belongs to. Ejected servers are used only when no other is
        left, so an upstream recovers even if all of it was ejected.
        """
        if len(self.servers) == 1:
            return None if tried else self.servers[0]
        untried = [server for server in self.servers if server not in tried]
        now = self._clock()
        candidates = [server for server in untried if server.ejected_until <= now] or untried
        if not candidates:
            return None
        if self.hash_by is not None:
            return _highest(candidates, affinity)
        if not self._is_even:
            return self._next_by_weight(candidates)
        turn = next(self._turns) % len(candidates)
        if not self._counts_load:
            return candidates[turn]
        return min((*candidates[turn:], *candidates[:turn]), key=lambda server: server.in_flight)

    def close_idle(self, now: float) -> None:
        """Close the idle connections that get no more requests."""
        for server in self.servers:
            server.close_idle(now)

    def close(self) -> None:
        """Close all idle connections."""
        for server in self.servers:
            server.close()

    def _next_by_weight(self, candidates: Sequence[UpstreamServer]) -> UpstreamServer:
        """Return the next of *candidates*, or of those with the least load, so that each gets its share, evenly.

        Each candidate gets its weight as credit; the one with the most of it is next, and pays for all (the smooth
        weighted round robin of nginx).
        """
        if self._counts_load:
            loads = [server.in_flight / server.weight for server in candidates]
            least = min(loads)
            candidates = [server for server, load in zip(candidates, loads, strict=True) if load == least]
        credit, best, total = self._credit, candidates[0], 0.0
        for server in candidates:
            total += server.weight
            credit[server] += server.weight
            if credit[server] > credit[best]:
                best = server
        credit[best] -= total
        return best


def _highest(candidates: Sequence[UpstreamServer], affinity: bytes) -> UpstreamServer:
    """Return the one of *candidates* that *affinity* belongs to."""
    best, highest = candidates[0], 0.0
    for server in candidates:
        digest = blake2b(affinity, key=server.hash_key, digest_size=8).digest()
        score = rendezvous_score(digest, server.weight)
        if score > highest:
            best, highest = server, score
    return best
