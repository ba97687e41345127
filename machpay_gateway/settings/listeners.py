"""Where `machpay-gateway serve` listens: addresses of either family, of both, and Unix sockets."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import NamedTuple, get_args

from machpay_gateway.core.decision.route import ClientCertificate
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.network.upstream import MAX_PATH_BYTES

ANY_IPV4, ANY_IPV6 = "0.0.0.0", "::"  # noqa: S104 - the operator's choice
UNIX = "unix:"
_DEFAULT_MODE = "0660"
_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})")
_BARE_PORT = re.compile(r"(?::|\*:)?(?P<port>[0-9]{1,5})")
_MODE = re.compile(r"0?[0-7]{3}")
_OWNER = re.compile(r"(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)?(?::(?P<group>[A-Za-z0-9_][A-Za-z0-9_.-]*))?")
_MAX_PORT = 65535


class ListenAddress(NamedTuple):
    """An address to listen on; port 0 picks a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UnixAddress(NamedTuple):
    """The path of a Unix socket to listen on."""

    path: str

    def __str__(self) -> str:
        return f"{UNIX}{self.path}"


class Place(NamedTuple):
    """One *address* of a listener, which is the one with that number in `listen`."""

    address: ListenAddress | UnixAddress
    listener: int


def parse_listen(text: object) -> ListenAddress:
    """Return the one address that *text* names. Raises ConfigurationError."""
    match = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
    if match is None or int(match["port"]) > _MAX_PORT:
        raise ConfigurationError(f"{text!r} is not an address to listen on, such as 127.0.0.1:8000 or [::]:8000")
    return ListenAddress(match["six"] or match["host"], int(match["port"]))


@dataclass(frozen=True, slots=True)
class Listener:
    """One entry of `listen`.

    *address* is `host:port`, `[address]:port`, `:port` for all addresses of both families, as is `[::]:port`, or
    `unix:/path`. *mode* are the permissions of a Unix socket, in octal, and *owner* its `user`, `user:group` or
    `:group`. *tls* is whether callers use TLS; without it, they do where there is a certificate and no Unix socket.
    *proxy_protocol* is whether its peers are proxies that begin each connection with a header of the PROXY protocol;
    without it, it is as `server.proxy_protocol` says. *client_certificate* is whether callers must present
    one, by default as `server.client_certificate` says. Raises ConfigurationError.
    """

    address: str
    mode: str | None = None
    owner: str | None = None
    tls: bool | None = None
    proxy_protocol: bool | None = None
    client_certificate: ClientCertificate | None = None
    places: tuple[ListenAddress | UnixAddress, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", _address_text(self.address))
        object.__setattr__(self, "places", _places(self.address))
        for name in ("mode", "owner"):
            if getattr(self, name) is not None and not self.is_unix:
                raise ConfigurationError(f"{name} is for Unix sockets, and {self.address!r} is none")
        if self.mode is not None:
            _check_mode(self.mode)
        if self.owner is not None:
            _check_owner(self.owner)
        _check_flags(self)

    @property
    def is_unix(self) -> bool:
        """Whether it is a Unix socket."""
        return isinstance(self.places[0], UnixAddress)

    @property
    def is_any_ipv6(self) -> bool:
        """Whether it is `[::]:port`, which has the addresses of IPv4 where nothing else does."""
        return len(self.places) > 1 and self.address.startswith("[")

    @property
    def is_bare_port(self) -> bool:
        """Whether it is a port alone, for the families that the host has."""
        return len(self.places) > 1 and not self.is_any_ipv6

    @property
    def permissions(self) -> int:
        """The permissions of a Unix socket as a number."""
        return int(self.mode or _DEFAULT_MODE, 8)

    @property
    def owner_names(self) -> tuple[str | None, str | None]:
        """The user and the group that own a Unix socket; None stays as it is."""
        match = _OWNER.fullmatch(self.owner or "")
        return (match["user"], match["group"]) if match else (None, None)


def parse_listeners(value: object) -> tuple[Listener, ...]:
    """Return the listeners that *value* names: an address, a table of a `Listener`, or a list of them.

    The environment has text: addresses with commas between them, or JSON. Raises ConfigurationError.
    """
    listeners = tuple(_parse_listener(item) for item in _items(value))
    if not listeners:
        raise ConfigurationError(f"{value!r} names no address to listen on")
    _check_conflicts(listeners)
    return listeners


def places_of(listeners: Sequence[Listener]) -> Sequence[Place]:
    """Return every address to listen on.

    `[::]:port` is all addresses of both families, unless the list has one of IPv4 with that port: then it is IPv6.
    """
    ipv4_ports = {
        place.port
        for listener in listeners
        for place in listener.places
        if isinstance(place, ListenAddress) and ":" not in place.host and not listener.is_any_ipv6
    }
    return [
        Place(place, number)
        for number, listener in enumerate(listeners)
        for place in listener.places
        if not (listener.is_any_ipv6 and place in {ListenAddress(ANY_IPV4, port) for port in ipv4_ports})
    ]


def to_text(listeners: Sequence[Listener]) -> str:
    """Return *listeners* as the environment may have them."""
    names = [item.name for item in fields(Listener) if item.init]
    tables = [{name: value for name, value in asdict(listener).items() if name in names} for listener in listeners]
    return json.dumps(tables)


def _items(value: object) -> Sequence[object]:
    if isinstance(value, str):
        text = value.strip()
        if text.startswith(("[{", '["', "{")):
            try:
                parsed = json.loads(text)
            except ValueError:
                raise ConfigurationError(f"{value!r} is not valid JSON") from None
            return parsed if isinstance(parsed, list) else [parsed]
        return [part.strip() for part in text.split(",") if part.strip()]
    if isinstance(value, Sequence):
        return value
    return [value]


def _parse_listener(item: object) -> Listener:
    if isinstance(item, Listener):
        return item
    if not isinstance(item, Mapping):
        return Listener(item)  # type: ignore[arg-type]  # it checks the type
    names = [entry.name for entry in fields(Listener) if entry.init]
    for name in item:
        if name not in names:
            raise ConfigurationError(f"{name!r} is not a setting of a listener; known: {', '.join(names)}")
    if "address" not in item:
        raise ConfigurationError("a listener lacks its address")
    return Listener(**item)


def _address_text(address: object) -> str:
    if type(address) is int:  # a bare port, as the environment and TOML may have it
        return str(address)
    if not isinstance(address, str):
        raise ConfigurationError(f"{address!r} is not an address to listen on, such as 127.0.0.1:8000 or [::]:8000")
    return address


def _check_mode(mode: object) -> None:
    if not isinstance(mode, str) or not _MODE.fullmatch(mode):
        raise ConfigurationError(f'mode {mode!r} is not an octal number in quotes, such as "{_DEFAULT_MODE}"')


def _check_flags(listener: Listener) -> None:
    for name in ("tls", "proxy_protocol"):
        if (flag := getattr(listener, name)) is not None and type(flag) is not bool:
            raise ConfigurationError(f"{name} is true or false, not {flag!r}")
    choices = get_args(ClientCertificate)
    if listener.client_certificate is not None and listener.client_certificate not in choices:
        raise ConfigurationError(
            f"client_certificate {listener.client_certificate!r} is not one of {', '.join(choices)}"
        )
    if listener.client_certificate == "required" and listener.is_unix:
        raise ConfigurationError("client_certificate is for addresses with TLS, not for Unix sockets")
    if listener.tls and listener.is_unix:
        raise ConfigurationError("tls is for addresses, not for Unix sockets, which do not leave the host")


def _check_owner(owner: object) -> None:
    if not isinstance(owner, str) or not owner or not _OWNER.fullmatch(owner):
        raise ConfigurationError(f'owner {owner!r} is not "user", "user:group" or ":group"')


def _places(address: str) -> tuple[ListenAddress | UnixAddress, ...]:
    if address.startswith(UNIX):
        return (_unix_place(address),)
    bare = _BARE_PORT.fullmatch(address)
    if bare is None:
        place = parse_listen(address)
        return _both_families(place.port) if place.host == ANY_IPV6 else (place,)
    if int(bare["port"]) > _MAX_PORT:
        raise ConfigurationError(f"{address!r} is not an address to listen on: a port is at most {_MAX_PORT}")
    return _both_families(int(bare["port"]))


def _both_families(port: int) -> tuple[ListenAddress, ...]:
    return ListenAddress(ANY_IPV4, port), ListenAddress(ANY_IPV6, port)


def _unix_place(address: str) -> UnixAddress:
    path = address.removeprefix(UNIX)
    if not path.startswith("/") or path.endswith("/") or "\0" in path:
        raise ConfigurationError(
            f"{address!r} is not the absolute path of a Unix socket, such as unix:/run/machpay.sock"
        )
    if len(path.encode()) > MAX_PATH_BYTES:
        raise ConfigurationError(f"{address!r} is longer than the {MAX_PATH_BYTES} bytes of a Unix socket's path")
    return UnixAddress(path)


def _check_conflicts(listeners: Sequence[Listener]) -> None:
    """Raise ConfigurationError for addresses of which one takes what the other one needs."""
    taken: dict[ListenAddress | UnixAddress, str] = {}
    places = [(place.address, listeners[place.listener].address) for place in places_of(listeners)]
    places = [(place, address) for place, address in places if isinstance(place, UnixAddress) or place.port]
    for place, address in places:
        if place in taken:
            raise ConfigurationError(f"{address!r} and {taken[place]!r} are the same address: leave one of them out")
        taken[place] = address
    for place, address in places:
        if isinstance(place, UnixAddress):
            continue
        wildcard = ListenAddress(ANY_IPV6 if ":" in place.host else ANY_IPV4, place.port)
        if wildcard in taken and wildcard != place:
            raise ConfigurationError(f"{address!r} is a part of {taken[wildcard]!r}: leave one of them out")
