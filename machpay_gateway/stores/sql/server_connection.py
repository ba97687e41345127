"""Connections to PostgreSQL: several servers to choose from, a password from a file, and a pooler in between."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from machpay_gateway.core.errors import ConfigurationError

if TYPE_CHECKING:
    import asyncpg

# Options of the URL that are not the driver's. The others are passed on to it.
_OWN_OPTIONS = ("host", "port", "target_session_attrs", "password_file")
OPTIONS = frozenset({*_OWN_OPTIONS, "prepared_statement_cache_size", "ssl", "sslmode"})
# What the gateway needs of a server. The others of libpq name servers that cannot be written to.
_SESSION_ATTRIBUTES = ("any", "primary", "read-write")
_DEFAULT_PORT = 5432
_MAX_PORT = 65535
# The part of a URL before its hosts, as SQLAlchemy reads it, and the hosts.
_BEFORE_HOSTS = re.compile(r"(postgresql://(?:[^:/?]*(?::[^@]*)?@)?)([^/?]*)")
_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^:@\[\]]+))(?::(?P<port>[0-9]{1,5}))?")


class Server(NamedTuple):
    """A host, or the folder of a socket, and a port."""

    host: str
    port: int


def split_hosts(text: str) -> tuple[str, list[str]]:
    """Return the URL *text* with the first of its hosts alone, and all of them if there are several."""
    match = _BEFORE_HOSTS.match(text)
    if match is None or "," not in match[2]:
        return text, []
    hosts = match[2].split(",")
    return f"{match[1]}{hosts[0]}{text[match.end() :]}", hosts


def server_url(url: URL, hosts: Sequence[str]) -> URL:
    """Return the PostgreSQL *url* with its driver, and with *hosts* if there are several. Raises ConfigurationError."""
    if unknown := sorted(url.query.keys() - OPTIONS):
        options = ", ".join(sorted(OPTIONS))
        raise ConfigurationError(f"postgresql:// takes no option {unknown[0]!r}: use {options}")
    query = dict(url.query)
    if "sslmode" in query:  # libpq's name for what asyncpg calls ssl; hosting companies use it in their URLs
        query["ssl"] = query.pop("sslmode")
    if hosts:
        if "host" in query:
            raise ConfigurationError("postgresql:// takes its hosts before the path or as the option host, not both")
        query["host"] = tuple(hosts)
    attributes = query.get("target_session_attrs", "any")
    if attributes not in _SESSION_ATTRIBUTES:
        names = ", ".join(_SESSION_ATTRIBUTES)
        raise ConfigurationError(f"target_session_attrs is one of {names}: the gateway writes to its database")
    if "password_file" in query and url.password is not None:
        raise ConfigurationError("postgresql:// takes a password or a password_file, not both")
    complete = url.set(drivername="postgresql+asyncpg", query=query)
    servers_of(complete)  # which raises
    return complete


def servers_of(url: URL) -> list[Server]:
    """Return the servers that *url* names; none if it leaves them to the driver. Raises ConfigurationError."""
    named, ports = _parts(url.query.get("host", ())), _parts(url.query.get("port", ()))
    if not named:
        port = str(url.port or "".join(ports))
        return [] if url.host is None else [_server("localhost", port)._replace(host=url.host)]
    if len(ports) not in (0, 1, len(named)):
        raise ConfigurationError("postgresql:// takes one port, or one for each host")
    every = ports if len(ports) == len(named) else ports * len(named) or [""] * len(named)
    return [_server(host, port) for host, port in zip(named, every, strict=True)]


def _parts(value: str | Sequence[str]) -> list[str]:
    return [part for text in ([value] if isinstance(value, str) else value) for part in text.split(",")]


def _server(text: str, port: str) -> Server:
    folder = text.startswith("/")
    match = None if folder else _HOST.fullmatch(text)
    number = port or (match["port"] if match is not None else None) or str(_DEFAULT_PORT)
    if not (folder or match is not None) or not number.isdecimal() or int(number) > _MAX_PORT:
        raise ConfigurationError(
            "A host of the database URL cannot be read: use postgresql://user@host1:5432,host2:5432/name"
        )
    return Server(text if match is None else match["six"] or match["host"], int(number))


class ServerConnector:
    """Connects to the servers of a URL. The one that was connected to last is tried first."""

    def __init__(self, url: URL, url_file: Path | None = None) -> None:
        """Use the servers of *url*. Each connection logs in by the password that its *url_file* has then, if any."""
        self.driver_url = url.difference_update_query(_OWN_OPTIONS)
        self.servers = servers_of(url)
        self._attributes = str(url.query.get("target_session_attrs", "any"))
        self._password: Callable[[], str] | None = None
        if "password_file" in url.query:
            self._password = partial(_read, Path(str(url.query["password_file"])))
        elif url_file is not None and url.password is not None:
            self._password = partial(_password_in_url, url_file)
        self._first = 0

    @property
    def wants_writable(self) -> bool:
        """Whether only servers that can be written to are connected to."""
        return self._attributes != "any"

    async def connect(self, *, timeout: float, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":  # noqa: ANN401, ASYNC109 - the driver's
        """Return a connection, within *timeout* seconds for all servers together. Raises as the driver does."""
        import asyncpg  # noqa: PLC0415 - it takes 0.1 s

        options |= self._session_options()
        if not self.servers:
            return await asyncpg.connect(timeout=timeout, **options)
        count = len(self.servers)
        failure: Exception = AssertionError("no servers")
        for index in [(self._first + step) % count for step in range(count)]:
            server = self.servers[index]
            try:
                connection = await asyncpg.connect(
                    **(options | {"host": server.host, "port": server.port}), timeout=timeout / count
                )
            except (
                OSError,
                asyncpg.CannotConnectNowError,
                asyncpg.PostgresConnectionError,
            ) as exc:
                failure = exc
            except asyncpg.TargetServerAttributeNotMatched:
                failure = OSError(f"{server.host}:{server.port} is not {self._attributes}")
            else:
                self._first = index
                return connection
        raise failure

    def _session_options(self) -> Mapping[str, Any]:
        options: dict[str, Any] = {"target_session_attrs": self._attributes}
        if self._password is not None:  # called at each new connection: a rotated one needs no restart
            options["password"] = self._password
        return options

    async def is_pooled(self, *, timeout: float) -> bool:  # noqa: ASYNC109 - the driver's
        """Return whether a pooler, such as PgBouncer, is between this process and the server.

        Behind one, a statement may run in another session than the one before. A pooler invents the process id that it
        names at the connection. Raises as the driver does.
        """
        options = self.driver_url.translate_connect_args(username="user")
        if "ssl" in self.driver_url.query:
            options["ssl"] = self.driver_url.query["ssl"]
        connection = await self.connect(timeout=timeout, statement_cache_size=0, command_timeout=timeout, **options)
        try:
            async with connection.transaction():
                return bool(await connection.fetchval("SELECT pg_backend_pid()") != connection.get_server_pid())
        finally:
            connection.terminate()


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8").rstrip("\r\n")


def _password_in_url(path: Path) -> str:
    """Return the password of the URL in *path*. Raises OSError."""
    try:
        return str(make_url(split_hosts(_read(path))[0]).password or "")
    except (ArgumentError, ValueError):
        raise OSError(f"{path} holds no URL that can be read") from None  # and is not quoted
