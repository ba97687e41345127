"""Where the servers are: parses the URL and connects. redis-py knows URLs, TLS, AUTH and Sentinel."""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import InvalidResponse, RedisError
from redis.exceptions import TimeoutError as LateConnection

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.limiters.redis.connection import ServerConnection, execute
from machpay_gateway.limiters.redis.credentials import PasswordFile, UrlFile
from machpay_gateway.limiters.redis.refusals import UnknownPrimaryError, WrongProtocolError

Address = tuple[str, int]
CLUSTER_SLOTS = ("CLUSTER", "SLOTS")
CONNECT_SECONDS = 1.0
_PROBE_SECONDS = 0.3

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

    async def connect(self) -> ServerConnection:
        """Connect to the one server that takes writes now, if they are no Cluster. Raises RedisError and OSError."""
        if self.kind == "sentinel":
            return await self.connect_to(await self._primary())
        return await ServerConnection.connect(self._connection())

    async def connect_to(self, address: Address) -> ServerConnection:
        """Connect to the server at *address*. Raises RedisError and OSError."""
        host, port = address
        return await ServerConnection.connect(self._connection(host=host, port=port))

    async def read_slots(self, addresses: Sequence[Address]) -> Mapping[int, Address]:
        """Return the primary of each slot that has one, by the first of *addresses* that answers.

        Raises RedisError and OSError.
        """
        failures: list[Exception] = []
        for address in addresses:
            try:
                async with asyncio.timeout(CONNECT_SECONDS / (len(addresses) + 1)):  # leaves time for the next
                    return slots_in(await self._slot_ranges(address), address[0])
            except (RedisError, OSError) as exc:
                failures.append(exc)
        raise failures[0]

    async def diagnose(self, failure: Exception) -> Exception:
        """Return WrongProtocolError when only one of URL and server speaks TLS, else *failure* of `connect`."""
        address = self._first_address()
        if address is None or type(failure) not in _PROTOCOL_FAILURES:
            return failure
        uses_tls = self.connection_class is SSLConnection
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                is_other = await (_speaks_plain(address) if uses_tls else _speaks_tls(address))
        except (OSError, TimeoutError):
            return failure
        return WrongProtocolError(speaks_tls=not uses_tls) if is_other else failure

    def _first_address(self) -> Address | None:
        """Return where the first connection of `connect` goes, None for a Unix socket."""
        if self.kind:
            return self.hosts[0]
        return (
            None if "path" in self.options else (self.options.get("host", "localhost"), self.options.get("port", 6379))
        )

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
        except MasterNotFoundError as exc:
            if await _is_unknown_to_all(sentinels, self.service):
                raise UnknownPrimaryError(*exc.args) from exc
            raise
        finally:
            for sentinel in sentinels.sentinels:  # most versions of redis-py cannot close them together
                await sentinel.aclose()
        return host, port

    async def _slot_ranges(self, address: Address) -> list[list[Any]]:
        connection = await self.connect_to(address)
        try:
            return cast("list[list[Any]]", await execute(connection, b"", CLUSTER_SLOTS))
        finally:
            await connection.close()

    def _connection(self, **where: Any) -> AbstractConnection:  # noqa: ANN401 - redis-py's own options
        return self.connection_class(**{**self.options, **where, "retry": Retry(NoBackoff(), 0)})


async def _is_unknown_to_all(sentinels: Sentinel, service: str) -> bool:
    """Return whether all *sentinels* answer, and none watches *service*: one that is down is still known to them."""
    for sentinel in sentinels.sentinels:
        try:
            if service in await sentinel.sentinel_masters():
                return False
        except RedisError:
            return False
    return True


async def _speaks_tls(address: Address) -> bool:
    """Return whether what listens at *address* replies to the begin of a TLS handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without authorities, which take long to load
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    sent = ssl.MemoryBIO()
    handshake = context.wrap_bio(ssl.MemoryBIO(), sent)
    with suppress(ssl.SSLWantReadError):
        handshake.do_handshake()
    return await _first_byte(address, sent.read()) in {b"\x15", b"\x16"}  # an alert, or its part of the handshake


async def _speaks_plain(address: Address) -> bool:
    """Return whether a plain PING gets a reply at *address*."""
    return await _first_byte(address, b"PING\r\n") in {b"+", b"-"}


async def _first_byte(address: Address, sent: bytes) -> bytes:
    """Return the first byte of the reply to what is *sent*."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(sent)
        return await reader.read(1)
    finally:
        writer.transport.abort()


# A server that gets the other protocol waits for more, hangs up, or replies in its own.
_PROTOCOL_FAILURES = {ConnectionLost, LateConnection, TimeoutError, InvalidResponse}


def slots_in(ranges: list[list[Any]], queried_host: str) -> Mapping[int, Address]:
    """Return the primary of each slot that has one, by the reply of *queried_host* to CLUSTER SLOTS."""
    slots: dict[int, Address] = {}
    for first, last, (host, port, *_), *_ in ranges:
        address = (bytes(host or b"").decode() or queried_host, int(port))  # an empty host means the one that replied
        slots.update(dict.fromkeys(range(first, last + 1), address))
    return slots


def servers_for(url: str, url_file: Path | None = None) -> Servers:
    """Return the servers of *url*. Raises ConfigurationError, which does not repeat it: it may hold a password.

    *url_file* is the file that it is from: each connection logs in by the user and the password that it has then.
    """
    try:
        return _parse(url, url_file)
    except ValueError as exc:
        # Not the parser's message: where a password has a / or an @, it quotes a part of it.
        raise ConfigurationError("redis: the URL cannot be read: write what is special in a password as %xx") from exc


def _parse(url: str, url_file: Path | None) -> Servers:
    """Parse *url*; redis-py parses it with the first of several hosts. Raises ValueError and ConfigurationError."""
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    hosts: list[Address] = []
    service, query = "", dict(parse_qsl(parts.query))
    sentinel: dict[str, Any] = {
        name: query.pop(f"sentinel_{name}")
        for name in ("username", "password", "password_file")
        if f"sentinel_{name}" in query
    }
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
    _use_password_file(options)
    _use_password_file(sentinel)
    if url_file is not None and "password" in options:
        for name in ("username", "password"):
            options.pop(name, None)
        options["credential_provider"] = UrlFile(url_file)
    connection_class = options.pop("connection_class", Connection)
    if kind:
        del options["host"], options["port"]
    return Servers(kind, hosts, service, connection_class, options, sentinel)


def _use_password_file(options: dict[str, Any]) -> None:
    """Let connections with *options* read the password from a file, if they name one."""
    if (file := options.pop("password_file", None)) is None:
        return
    if "password" in options:
        raise ConfigurationError("redis: the URL has a password and a password_file: name one of the two")
    provider = options["credential_provider"] = PasswordFile(Path(file), options.pop("username", None))
    provider.check()


def _parse_address(text: str, default_port: int) -> Address:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ConfigurationError("redis: one of the URL's hosts is empty")
    return parts.hostname, parts.port or default_port
