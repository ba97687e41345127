"""Where the servers are: what a URL names, and a link to it. redis-py knows URLs, TLS, AUTH, Sentinel and Cluster."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.limiters.redis.cluster import Address, ClusterLink, slots_in
from machpay_gateway.limiters.redis.link import Link, ServerLink, answer

CONNECT_SECONDS = 1.0

# redis-py's own defaults are for a caller who waits: ten retries, five seconds. Whoever waits here is told instead.
_OPTIONS: Mapping[str, Any] = {
    "protocol": 2,
    "socket_timeout": None,
    "socket_connect_timeout": CONNECT_SECONDS,
    "client_name": "machpay-gateway",
}


class Servers(Protocol):
    """What one URL names."""

    async def link(self) -> Link:
        """Find who takes writes now, connect, and return the link. Raises RedisError and OSError."""


def servers_for(url: str) -> Servers:
    """Return the servers that *url* names. Raises ConfigurationError without it: it may hold a password."""
    try:
        named = _named_by(url)
    except ValueError as exc:
        # Not what the parser says: where a password has a / or a @, it says a part of it.
        raise ConfigurationError("redis: the URL cannot be read: write what is special in a password as %xx") from exc
    if named.kind == "sentinel":
        return _BySentinel(named)
    return _InCluster(named) if named.kind == "cluster" else _OneServer(named)


@dataclass(frozen=True)
class _Named:
    """A URL taken apart; *options* are those of a redis-py connection, *sentinel* those of one to a sentinel."""

    kind: str  # "", "sentinel" or "cluster"
    hosts: Sequence[Address]
    service: str
    connection_class: type[AbstractConnection]
    options: Mapping[str, Any]
    sentinel: Mapping[str, Any]

    def connection(self, **where: Any) -> AbstractConnection:  # noqa: ANN401 - redis-py's own options
        return self.connection_class(**{**self.options, **where, "retry": Retry(NoBackoff(), 0)})


def _named_by(url: str) -> _Named:
    """Take *url* apart; redis-py is shown the first of several hosts. Raises ValueError, ConfigurationError."""
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    hosts: list[Address] = []
    service, query = "", dict(parse_qsl(parts.query))
    sentinel = {name: query.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in query}
    if kind:
        user, at, listed = parts.netloc.rpartition("@")
        hosts = [_address(host, 26379 if kind == "sentinel" else 6379) for host in listed.split(",")]
        service, _, database = parts.path.strip("/").partition("/")
        if kind == "cluster":
            service, database = "", service
        if kind == "sentinel" and not service:
            raise ConfigurationError("redis: the URL does not say which service: redis+sentinel://host:26379/primary/0")
        if kind == "cluster" and database not in {"", "0"}:
            raise ConfigurationError("redis: a Cluster has database 0 only")
        url = urlunsplit((scheme, f"{user}{at}{hosts[0][0]}:{hosts[0][1]}", f"/{database}", urlencode(query), ""))
    read: dict[str, Any] = {**_OPTIONS, **parse_url(url)}
    connection_class = read.pop("connection_class", Connection)
    if kind:
        del read["host"], read["port"]
    return _Named(kind, hosts, service, connection_class, read, sentinel)


def _address(text: str, default_port: int) -> Address:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ConfigurationError("redis: one of the URL's hosts is empty")
    return parts.hostname, parts.port or default_port


@dataclass(frozen=True)
class _OneServer:
    named: _Named

    async def link(self) -> Link:
        return await ServerLink.opened(self.named.connection())


@dataclass(frozen=True)
class _BySentinel:
    named: _Named

    async def link(self) -> Link:
        tls = {k: v for k, v in self.named.options.items() if k.startswith("ssl")}
        is_tls = self.named.connection_class is SSLConnection
        options = {
            "socket_timeout": CONNECT_SECONDS / 2,  # one that is dead leaves time to ask the next
            "socket_connect_timeout": CONNECT_SECONDS / 2,
            "retry": Retry(NoBackoff(), 0),
            "ssl": is_tls,
        }
        asked = Sentinel(  # type: ignore[no-untyped-call]  # redis-py's own
            self.named.hosts, sentinel_kwargs={**options, **tls, **self.named.sentinel}
        )
        try:
            host, port = await asked.discover_master(self.named.service)
        finally:
            await asked.aclose()
        return await ServerLink.opened(self.named.connection(host=host, port=port))


@dataclass(frozen=True)
class _InCluster:
    """Asks for the map itself: redis-py's client of a Cluster leaves connections behind when its loop ends soon."""

    named: _Named

    async def link(self) -> Link:
        slots = await self._slots()
        tasks = {address: asyncio.create_task(self._connect(address)) for address in sorted(set(slots.values()))}
        try:
            links = await asyncio.gather(*tasks.values())
        except BaseException:
            # One that cannot be reached, or all that took too long: none of the others may be left open.
            for task in tasks.values():
                task.cancel()
            for link in await asyncio.gather(*tasks.values(), return_exceptions=True):
                if isinstance(link, ServerLink):
                    await link.close()
            raise
        return ClusterLink(slots, dict(zip(tasks, links, strict=True)), self._connect)

    async def _slots(self) -> dict[int, Address]:
        """Return which primary has each slot, as the first host says that answers."""
        failures: list[Exception] = []
        for address in self.named.hosts:
            try:
                async with asyncio.timeout(CONNECT_SECONDS / (len(self.named.hosts) + 1)):  # leaves time for the next
                    return slots_in(await self._ranges(address), address[0])
            except (RedisError, OSError) as exc:
                failures.append(exc)
        raise failures[0]

    async def _ranges(self, address: Address) -> list[list[Any]]:
        link = await self._connect(address)
        try:
            return cast("list[list[Any]]", await answer(link, b"", ("CLUSTER", "SLOTS")))
        finally:
            await link.close()

    async def _connect(self, address: Address) -> ServerLink:
        host, port = address
        return await ServerLink.opened(self.named.connection(host=host, port=port))
