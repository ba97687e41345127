"""The dialer of an upstream server: its name becomes addresses, and the first that answers becomes a connection.

Addresses are tried as RFC 8305 says (happy eyeballs): both families in turn, the next one when an attempt has failed
or has not succeeded within 250 ms. The event loops differ in what they have of this, and in which addresses they use.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from socket import AF_INET, AF_INET6, AF_UNSPEC, SOCK_STREAM
from time import monotonic

from machpay_gateway.core.network.address import parse_address
from machpay_gateway.core.network.upstream import Origin
from machpay_gateway.proxy.dead_peers import detect_dead_peers
from machpay_gateway.proxy.upstream import UpstreamConnection
from machpay_gateway.proxy.upstream_tls import UpstreamTls

ATTEMPT_SECONDS = 0.25  # RFC 8305 §5: the recommended Connection Attempt Delay
# How long a connection waits for a resolver while earlier addresses are there, and how old these are at least before
# it is asked because none of them answers.
_STALE_SECONDS = 1.0
_RETRY_SECONDS = 5.0  # after a resolver has failed

Opened = tuple[asyncio.BaseTransport, UpstreamConnection]


class Dialer:
    """Opens connections to one origin.

    *protocol* makes the protocol of a connection.
    *addresses* are those of its name, () until it is resolved. *on_move* gets them when earlier ones are gone.
    """

    def __init__(
        self,
        origin: Origin,
        protocol: Callable[[], UpstreamConnection],
        *,
        resolve_seconds: float,
        dead_peer_seconds: float = 0.0,
        tls: UpstreamTls | None = None,
        tls_name: str | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Connect to *origin*, over *tls* if that is given; resolve its name again every *resolve_seconds*.

        *tls_name*, by default the origin's, is in SNI, and the certificate must have it. *dead_peer_seconds* is when a
        server that acknowledges nothing is given up; 0 is never. *clock* is monotonic, in seconds.
        """
        self._loop = asyncio.get_running_loop()
        self._origin = origin
        self.protocol = protocol
        self._tls = tls
        self._tls_name = None if tls is None else tls_name or origin.host
        self._clock = clock
        self._resolve_seconds = resolve_seconds
        self._dead_peer_seconds = dead_peer_seconds
        is_name = parse_address(origin.host) is None
        self.addresses: tuple[str, ...] = () if is_name else (origin.host,)
        self.resolve_at = float("-inf" if is_name else "inf")  # when the addresses are to be resolved again
        self.on_move: Callable[[frozenset[str]], None] | None = None
        self._resolved_at = float("-inf" if is_name else "inf")
        self._slow: set[str] = set()  # of the addresses, those that failed or were overtaken
        self._turn = 0
        self._resolving: asyncio.Task[None] | None = None

    async def connect(self) -> Opened:
        """Return a new connection. Raises OSError when there is no address, or the error of the last one."""
        if self.resolve_at <= self._clock() or not self.addresses:
            resolving = self.refresh()
            # A resolver that hangs must not keep requests from a server whose addresses still work. `wait`, and no
            # `await`, because one request that is canceled must not cancel it for the others.
            await asyncio.wait([resolving], timeout=_STALE_SECONDS if self.addresses else None)
            if not self.addresses:
                resolving.result()  # which raises what is wrong
        tried = self.addresses
        try:
            return await self._open()
        except OSError:
            if not await self._has_moved(tried):
                raise
        except asyncio.CancelledError:  # after `connect_seconds`: nobody answers at these addresses
            if self._is_stale():
                _ = self.refresh()  # for the next request
            raise
        return await self._open()

    async def _open(self) -> Opened:
        addresses = self._in_order()
        if not addresses:
            raise OSError("its name has no address")
        return await (self._attempt(addresses[0]) if len(addresses) == 1 else self._first_of(addresses))

    async def _has_moved(self, tried: Sequence[str]) -> bool:
        """Resolve the name again, because none of the addresses *tried* answers; return whether it has others now."""
        if self._is_stale():
            await asyncio.wait([self.refresh()], timeout=_STALE_SECONDS)
        return not set(self.addresses) <= set(tried)

    def _is_stale(self) -> bool:
        """Return whether the name was resolved long enough ago; servers that fail must not flood the resolver."""
        return self._resolved_at + _STALE_SECONDS <= self._clock()

    def refresh(self) -> "asyncio.Task[None]":
        """Resolve the name, once for all that wait for it. The task raises OSError while there is no address at all."""
        if self._resolving is None:
            self._resolving = self._loop.create_task(self._resolve())
            self._resolving.add_done_callback(self._resolved)
        return self._resolving

    def _resolved(self, task: "asyncio.Task[None]") -> None:
        self._resolving = None
        if not task.cancelled():
            task.exception()  # for those who wait for it, who may be gone

    async def _resolve(self) -> None:
        origin = self._origin
        self._resolved_at = self._clock()
        try:
            resolved = await self._loop.getaddrinfo(origin.host, origin.port, family=AF_UNSPEC, type=SOCK_STREAM)
        except OSError:
            self.resolve_at = self._clock() + min(_RETRY_SECONDS, self._resolve_seconds)
            if not self.addresses:
                raise
            return  # the earlier addresses may still work
        before, self.addresses = (
            self.addresses,
            _interleaved([(family, str(at[0])) for family, _, _, _, at in resolved]),
        )
        self.resolve_at = self._clock() + self._resolve_seconds
        self._slow.clear()
        if self.on_move is not None and not set(before) <= set(self.addresses):
            self.on_move(frozenset(self.addresses))

    def _in_order(self) -> tuple[str, ...]:
        """Return the addresses in the order to try them: each time another one first, and last those that failed."""
        addresses, slow = self.addresses, self._slow
        if len(addresses) == 1:
            return addresses
        good = [address for address in addresses if address not in slow] or list(addresses)
        bad = [address for address in addresses if address not in good]
        first = self._turn % len(good)
        self._turn += 1
        return (*good[first:], *good[:first], *bad)

    async def _first_of(self, addresses: Sequence[str]) -> Opened:
        """Return the connection of the first attempt that succeeds. Raises the error of the last one."""
        running: dict[asyncio.Task[Opened], str] = {}
        waiting = list(addresses)
        error: BaseException | None = None
        try:
            while waiting or running:
                if waiting:
                    address = waiting.pop(0)
                    running[self._loop.create_task(self._attempt(address))] = address
                ended, _ = await asyncio.wait(
                    list(running), timeout=ATTEMPT_SECONDS if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in ended:
                    if (error := task.exception()) is None:
                        del running[task]
                        return task.result()
                    self._slow.add(running.pop(task))
        finally:
            for task, address in running.items():
                self._slow.add(address)
                task.add_done_callback(_discard)
                task.cancel()
        raise error or OSError("its name has no address")

    async def _attempt(self, address: str) -> Opened:
        origin = self._origin
        transport, connection = await self._loop.create_connection(
            self.protocol,
            address,
            origin.port,
            ssl=None if self._tls is None else self._tls.context,
            server_hostname=self._tls_name,
        )
        if (sock := transport.get_extra_info("socket")) is not None:
            detect_dead_peers(sock, self._dead_peer_seconds)
        connection.address = address
        return transport, connection


def _discard(task: "asyncio.Task[Opened]") -> None:
    """Close the connection of an attempt that succeeded together with the one that is used."""
    if not task.cancelled() and task.exception() is None:
        task.result()[1].abort()


def _interleaved(resolved: Iterable[tuple[int, str]]) -> tuple[str, ...]:
    """Return the addresses *resolved* with the families in turn (RFC 8305 §4), each address once."""
    families: dict[int, dict[str, None]] = {}
    for family, address in resolved:
        if family in {AF_INET, AF_INET6}:
            families.setdefault(family, {})[address] = None
    queues = [list(addresses) for addresses in families.values()]
    longest = max(map(len, queues), default=0)
    return tuple(queue[index] for index in range(longest) for queue in queues if index < len(queue))
