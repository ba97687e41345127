"""The pool of an upstream's servers: which one gets the next request."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import count

from machpay_gateway.core.network.upstream_options import UpstreamOptions
from machpay_gateway.proxy.affinity import rendezvous_score
from machpay_gateway.proxy.upstream_server import DEFAULTS, UpstreamServer

_LEAST, _HASH = "least", "hash"
_MAX_RETRY_TOKENS = 10.0  # retries at once after many requests without


class ServerPool:
    """The servers of one upstream, which are interchangeable.

    *hash_by* is by what a request's server is chosen, None if that does not matter. *health* is how they are checked.
    Responses with one of *retry_statuses* may be retried; *retries* is how often that was done. *counts_requests* is
    whether requests must `begin`.
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
        self.health = options.health
        self.retry_statuses = frozenset(options.retry_statuses) if len(self.servers) > 1 else frozenset()
        self.retries = 0
        self._retry_budget = float(options.retry_budget)
        self._retry_tokens = _MAX_RETRY_TOKENS
        self._max_in_flight = options.max_in_flight
        self.counts_requests = bool(self.retry_statuses or self._max_in_flight)
        self._counts_load = options.balance == _LEAST
        self._is_even = not options.slow_start_seconds and len({server.weight for server in self.servers}) == 1
        self._clock = clock
        self._turns = count()
        self._retry_turns = count()  # else a retry takes the turn after a failing server, which is next again
        self._credit = dict.fromkeys(self.servers, 0.0)  # of servers with different weights
        for server in self.servers:
            server.may_be_ejected = self._may_eject

    def pick(self, tried: Collection[UpstreamServer] = (), affinity: bytes = b"") -> UpstreamServer | None:
        """Return the server for the next request that is not in *tried*, None if there is none.

        With `balance = "least"` it is the one with the fewest requests in flight, with `round_robin` the next one, each
        by its weight; with `hash` the one that *affinity* belongs to. Servers that are out are used only when no other
        is left, so an upstream recovers even if all of it was out.
        """
        if len(self.servers) == 1:
            return None if tried else self.servers[0]
        untried = [server for server in self.servers if server not in tried]
        now = self._clock()
        candidates = [server for server in untried if server.is_healthy and server.ejected_until <= now] or untried
        if not candidates:
            return None
        if self.hash_by is not None:
            return _highest(candidates, affinity, now)
        if not self._is_even:
            return self._next_by_weight(candidates, now)
        turn = next(self._retry_turns if tried else self._turns) % len(candidates)
        if not self._counts_load:
            return candidates[turn]
        return min((*candidates[turn:], *candidates[:turn]), key=lambda server: server.in_flight)

    def begin(self) -> bool:
        """Count a new request; return False if there are too many already."""
        if self._max_in_flight and sum(server.in_flight for server in self.servers) >= self._max_in_flight:
            return False
        self._retry_tokens = min(self._retry_tokens + self._retry_budget, _MAX_RETRY_TOKENS)
        return True

    def take_retry(self, tried: Collection[UpstreamServer]) -> bool:
        """Return whether a request is sent to another server than those in *tried*, and count the retry.

        That needs a server that is not out, and what is left of the budget: when all servers fail, retries must not
        multiply the load.
        """
        now = self._clock()
        if self._retry_tokens < 1 or all(server in tried or server.is_out(now) for server in self.servers):
            return False
        self._retry_tokens -= 1
        self.retries += 1
        return True

    def problems(self) -> Mapping[str, str]:
        """Return what is wrong with the servers that are out, by their names."""
        now = self._clock()
        return {server.name: server.problem for server in self.servers if server.is_out(now)}

    def close_idle(self, now: float) -> None:
        """Close the idle connections that get no more requests."""
        for server in self.servers:
            server.close_idle(now)

    def close(self) -> None:
        """Close all idle connections."""
        for server in self.servers:
            server.close()

    def _may_eject(self, server: UpstreamServer) -> bool:
        """Return whether *server* may be ejected: never more than half of the pool is.

        The only server may be: it gets all requests all the same, and is reported.
        """
        now = self._clock()
        out = 1 + sum(other is not server and other.is_out(now) for other in self.servers)
        return len(self.servers) == 1 or 2 * out <= len(self.servers)

    def _next_by_weight(self, candidates: Sequence[UpstreamServer], now: float) -> UpstreamServer:
        """Return the next of *candidates*, or of those with the least load, so that each gets its share, evenly.

        Each candidate gets its weight as credit; the one with the most of it is next, and pays for all (the smooth
        weighted round robin of nginx).
        """
        if self._counts_load:
            loads = [server.in_flight / server.weight_at(now) for server in candidates]
            least = min(loads)
            candidates = [server for server, load in zip(candidates, loads, strict=True) if load == least]
        credit, best, total = self._credit, candidates[0], 0.0
        for server in candidates:
            weight = server.weight_at(now)
            total += weight
            credit[server] += weight
            if credit[server] > credit[best]:
                best = server
        credit[best] -= total
        return best


def _highest(candidates: Sequence[UpstreamServer], affinity: bytes, now: float) -> UpstreamServer:
    """Return the one of *candidates* that *affinity* belongs to."""
    best, highest = candidates[0], 0.0
    for server in candidates:
        digest = blake2b(affinity, key=server.hash_key, digest_size=8).digest()
        score = rendezvous_score(digest, server.weight_at(now))
        if score > highest:
            best, highest = server, score
    return best
