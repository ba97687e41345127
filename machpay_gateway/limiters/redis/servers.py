"""Where the servers are: parses the URL and connects. redis-py knows URLs, TLS, AUTH and Sentinel."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.limiters.redis.cluster import Address, ClusterConnection, slots_in
from machpay_gateway.limiters.redis.connection import PipelinedConnection, ServerConnection, execute

CONNECT_SECONDS = 1.0

# redis-py's defaults suit a caller who waits: ten retries, five seconds. Here a request gets an answer without it.
_OPTIONS: Mapping[str, Any] = {
    "protocol": 2,
    "socket_timeout": None,
    "socket_connect_timeout": CONNECT_SECONDS,
    "client_name": "machpay-gateway",
}


@dataclass(frozen=True)
class Servers:
    """The servers of one URL. *options* are those of a redis-py connection, *sentinel* those of one to a sentinel."""

    kind: str  # "", "sentinel" or "cluster"
    hosts: Sequence[Address]
    service: str
    connection_class: type[AbstractConnection]
    options: Mapping[str, Any]
    sentinel: Mapping[str, Any]

    async def connect(self) -> PipelinedConnection:
        """Connect to what takes writes now. Raises RedisError and OSError."""
        if self.kind == "sentinel":
            return await self._connect_to(await self._primary())
        if self.kind == "cluster":
            return await self._connect_to_cluster()
        return await ServerConnection.connect(self._connection())

    async def _primary(self) -> Address:
        """Return the primary that the sentinels name."""
        tls = {name: value for name, value in self.options.items() if name.startswith("ssl")}
        options = {
            "socket_timeout": CONNECT_SECONDS / 2,  # a dead sentinel leaves time for the next one
            "socket_connect_timeout": CONNECT_SECONDS / 2,
            "retry": Retry(NoBackoff(), 0),
            "ssl": self.connection_class is SSLConnection,
        }
        sentinels = Sentinel(  # type: ignore[no-untyped-call]  # redis-py's own
            self.hosts, sentinel_kwargs={**options, **tls, **self.sentinel}
        )
        try:
            host, port = await sentinels.discover_master(self.service)
        finally:
            await sentinels.aclose()
        return host, port

    async def _connect_to_cluster(self) -> ClusterConnection:
        """Connect to all primaries by the slot map.

        The map is read here: redis-py's Cluster client leaves connections open when its event loop ends soon.
        """
        slots = await self._slots()
        tasks = {address: asyncio.create_task(self._connect_to(address)) for address in sorted(set(slots.values()))}
        try:
            connections = await asyncio.gather(*tasks.values())
        except BaseException:
            # One server is unreachable, or all took too long: no connection to the others may stay open.
            for task in tasks.values():
                task.cancel()
            for connection in await asyncio.gather(*tasks.values(), return_exceptions=True):
                if isinstance(connection, ServerConnection):
                    await connection.close()
            raise
        return ClusterConnection(slots, dict(zip(tasks, connections, strict=True)), self._connect_to)

    async def _slots(self) -> dict[int, Address]:
        """Return the primary of each slot, by the first host that answers."""
        failures: list[Exception] = []
        for address in self.hosts:
            try:
                async with asyncio.timeout(CONNECT_SECONDS / (len(self.hosts) + 1)):  # leaves time for the next
                    return slots_in(await self._slot_ranges(address), address[0])
            except (RedisError, OSError) as exc:
                failures.append(exc)
        raise failures[0]

    async def _slot_ranges(self, address: Address) -> list[list[Any]]:
        connection = await self._connect_to(address)
        try:
            return cast("list[list[Any]]", await execute(connection, b"", ("CLUSTER", "SLOTS")))
        finally:
            await connection.close()

    async def _connect_to(self, address: Address) -> ServerConnection:
        host, port = address
        return await ServerConnection.connect(self._connection(host=host, port=port))

    def _connection(self, **where: Any) -> AbstractConnection:  # noqa: ANN401 - redis-py's own options
        return self.connection_class(**{**self.options, **where, "retry": Retry(NoBackoff(), 0)})


def servers_for(url: str) -> Servers:
    """Return the servers of *url*. Raises ConfigurationError, which does not repeat it: it may hold a password."""
    try:
        return _parse(url)
    except ValueError as exc:
        # Not the parser's message: where a password has a / or an @, it quotes a part of it.
        raise ConfigurationError("redis: the URL cannot be read: write what is special in a password as %xx") from exc


def _parse(url: str) -> Servers:
    """Parse *url*; redis-py parses it with the first of several hosts. Raises ValueError and ConfigurationError."""
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    hosts: list[Address] = []
    service, query = "", dict(parse_qsl(parts.query))
    sentinel = {name: query.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in query}
    if kind:
        user, at, listed = parts.netloc.rpartition("@")
        hosts = [_parse_address(host, 26379 if kind == "sentinel" else 6379) for host in listed.split(",")]
        service, _, database = parts.path.strip("/").partition("/")
        if kind == "cluster":
            service, database = "", service
        if kind == "sentinel" and not service:
            raise ConfigurationError("redis: the URL does not say which service: redis+sentinel://host:26379/primary/0")
        if kind == "cluster" and database not in {"", "0"}:
            raise ConfigurationError("redis: a Cluster has database 0 only")
        url = urlunsplit((scheme, f"{user}{at}{hosts[0][0]}:{hosts[0][1]}", f"/{database}", urlencode(query), ""))
    options: dict[str, Any] = {**_OPTIONS, **parse_url(url)}
    connection_class = options.pop("connection_class", Connection)
    if kind:
        del options["host"], options["port"]
    return Servers(kind, hosts, service, connection_class, options, sentinel)


def _parse_address(text: str, default_port: int) -> Address:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ConfigurationError("redis: one of the URL's hosts is empty")
    return parts.hostname, parts.port or default_port
