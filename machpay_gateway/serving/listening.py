"""The sockets of `serve`: bound once by the supervisor, and served by each worker."""

import errno
import grp
import os
import pwd
import socket
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.serving.servable import BACKLOG
from machpay_gateway.settings.listeners import ListenAddress, Listener, UnixAddress, places_of

_PORT_ATTEMPTS = 10  # to get one free port in both families
_NO_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})
_PROBE_SECONDS = 1.0


class AddressInUse(ConfigurationError):
    """Another process listens on the address."""


@dataclass(frozen=True, slots=True)
class BoundSocket:
    """A listening *socket*, where the settings have it. *listener* is the number of its entry in `listen`."""

    socket: socket.socket
    address: ListenAddress | UnixAddress
    listener: int
    file: tuple[int, int] | None = None  # of a Unix socket: its device and inode

    @property
    def is_unix(self) -> bool:
        """Whether it is a Unix socket."""
        return self.socket.family == socket.AF_UNIX

    @property
    def name(self) -> str:
        """Where it is reached: `127.0.0.1:8000` or `unix:/path`, with the port that was picked."""
        return str(self.address) if self.is_unix else socket_name(self.socket)

    def close(self) -> None:
        """Stop listening, and remove the file of a Unix socket unless another process has replaced it."""
        self.socket.close()
        if isinstance(self.address, UnixAddress) and self.file is not None:
            with suppress(OSError):
                if _file_of(self.address.path) == self.file:
                    Path(self.address.path).unlink()


@dataclass(frozen=True, slots=True)
class Listening:
    """The *sockets* of *listeners*."""

    listeners: Sequence[Listener]
    sockets: Sequence[BoundSocket]

    @property
    def files(self) -> Sequence[int]:
        """The file descriptors, for the processes that serve."""
        return [bound.socket.fileno() for bound in self.sockets]

    def to_argument(self) -> str:
        """Return the file descriptors with the numbers of their listeners, as `parse_sockets` reads them."""
        return ",".join(f"{bound.socket.fileno()}={bound.listener}" for bound in self.sockets)

    def close(self, *, without: "Listening | None" = None) -> None:
        """Close the sockets that are not among those of *without*."""
        _close_unused(self.sockets, () if without is None else without.sockets)


def parse_sockets(argument: str) -> Sequence[tuple[socket.socket, int]]:
    """Return the sockets that the supervisor passed, each with the number of its listener.

    A supervisor that was started before an update of the package may pass one file descriptor alone.
    """
    pairs = [part.partition("=") for part in argument.split(",")]
    return [(socket.socket(fileno=int(file)), int(number or 0)) for file, _, number in pairs]


def bind(listeners: Sequence[Listener], earlier: Listening | None = None) -> Listening:
    """Listen on each address of *listeners*; sockets of *earlier* are reused.

    Raises ConfigurationError with the way out for the first address that cannot be listened on.
    """
    bound = () if earlier is None else earlier.sockets
    places = places_of(listeners)
    sockets: list[BoundSocket] = []
    try:
        for number, listener in enumerate(listeners):
            addresses = [place.address for place in places if place.listener == number]
            sockets += _bind_one(listener, number, addresses, {other.address: other for other in bound})
    except ConfigurationError:
        _close_unused(sockets, bound)
        raise
    return Listening(listeners, sockets)


def socket_name(listening: socket.socket) -> str:
    """Return the address and the port that *listening* has."""
    return str(ListenAddress(*listening.getsockname()[:2]))


def listen_on(address: ListenAddress) -> socket.socket:
    """Return a socket that listens on *address*. Raises ConfigurationError."""
    try:
        return _listen(address)
    except OSError as exc:
        raise _unavailable(address, exc) from exc


def _bind_one(
    listener: Listener,
    number: int,
    addresses: Sequence[ListenAddress | UnixAddress],
    bound: Mapping[ListenAddress | UnixAddress, BoundSocket],
) -> Sequence[BoundSocket]:
    """Return the sockets of *listener*, whose *addresses* have the same port."""
    reused = [replace(bound[address], listener=number) for address in addresses if address in bound]
    missing = [address for address in addresses if address not in bound and isinstance(address, ListenAddress)]
    for address in addresses:
        if isinstance(address, UnixAddress) and reused:
            try:
                _set_rights(address.path, listener)
            except OSError as exc:
                raise _unavailable_path(address.path, exc) from exc
        elif isinstance(address, UnixAddress):
            return [BoundSocket(_listen_on_path(address.path, listener), address, number, _file_of(address.path))]
    for _ in range(_PORT_ATTEMPTS):
        opened: list[BoundSocket] = []
        for address in missing:
            try:
                opened += _open(listener, number, address, [*reused, *opened])
            except OSError as exc:
                _close_unused(opened, ())
                if exc.errno != errno.EADDRINUSE or address.port or not opened:
                    raise _unavailable(address, exc) from exc
                break  # the port that is free in one family is taken in the other one
        else:
            return [*reused, *opened]
    raise ConfigurationError(f"server: {listener.address}: no port is free in both families: name one")


def _open(
    listener: Listener, number: int, address: ListenAddress, others: Sequence[BoundSocket]
) -> Sequence[BoundSocket]:
    """Return the socket for *address*; none if the host lacks its family and the *listener* has *others*."""
    port = address.port or (others[0].socket.getsockname()[1] if others else 0)
    try:
        return [BoundSocket(_listen(ListenAddress(address.host, port)), address, number)]
    except OSError as exc:
        if exc.errno in _NO_FAMILY and listener.is_bare_port and others:
            return []
        raise


def _listen(address: ListenAddress) -> socket.socket:
    # `create_server` has a socket of IPv6 take IPv6 alone: another one may listen on the same port of IPv4.
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return socket.create_server(address, family=family, backlog=BACKLOG)


def _unavailable(address: ListenAddress, exc: OSError) -> ConfigurationError:
    # create_server appends the address. A host name that does not resolve has no strerror of its own.
    reason = (exc.strerror or str(exc)).partition(" (while ")[0]
    return ConfigurationError(
        f"server: {address.host} port {address.port} cannot be listened on ({reason}): choose another address"
    )


def _listen_on_path(path: str, listener: Listener) -> socket.socket:
    """Return a Unix socket at *path* with the owner and the mode of *listener*. Raises ConfigurationError."""
    _remove_stale(path)
    listening = socket.socket(socket.AF_UNIX)
    try:
        # Nobody else may connect before it has its owner and its mode.
        umask = os.umask(0o177)
        try:
            listening.bind(path)
        finally:
            os.umask(umask)
        _set_rights(path, listener)
        listening.listen(BACKLOG)
    except OSError as exc:
        listening.close()
        raise _unavailable_path(path, exc) from exc
    except ConfigurationError:
        listening.close()
        raise
    return listening


def _set_rights(path: str, listener: Listener) -> None:
    """Set owner and mode of the socket at *path*. Raises OSError and ConfigurationError."""
    user, group = listener.owner_names
    os.chown(path, _user_id(user), _group_id(group))
    Path(path).chmod(listener.permissions)


def _unavailable_path(path: str, exc: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"server: unix:{path} cannot be listened on ({exc.strerror or exc}): its folder must exist and be writable, "
        "and only root may give it to another user"
    )


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on, as a killed process leaves it. Raises ConfigurationError."""
    if _check_stale(path):
        Path(path).unlink(missing_ok=True)


def _check_stale(path: str) -> bool:
    """Return whether there is a socket that nobody listens on. Raises ConfigurationError for anything else there."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return False
    if not stat.S_ISSOCK(mode):
        raise ConfigurationError(f"server: {path} is there and is no socket: choose another path for listen")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except FileNotFoundError:
            return False
        except OSError as exc:  # such as no permission: whether it is stale remains open
            raise ConfigurationError(
                f"server: {path} is there and cannot be tried ({exc.strerror or exc}): remove it, or name another"
            ) from exc
        else:
            raise AddressInUse(
                f"server: another process listens on unix:{path}: stop it, or choose another path for listen"
            )


def try_address(address: ListenAddress | UnixAddress, listener: Listener | None) -> None:
    """Check that *address* can be listened on, without doing so. Raises ConfigurationError, such as AddressInUse."""
    if isinstance(address, UnixAddress):
        _try_path(address.path, listener)
        return
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
    except OSError as exc:
        if exc.errno in _NO_FAMILY and listener is not None and listener.is_bare_port:
            return
        error = _unavailable(address, exc)
        raise (AddressInUse(str(error)) if exc.errno == errno.EADDRINUSE else error) from exc


def _try_path(path: str, listener: Listener | None) -> None:
    _check_stale(path)
    folder = Path(path).parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(f"server: unix:{path}: the folder {folder} must exist and be writable")
    if listener is not None:
        user, group = listener.owner_names
        _user_id(user), _group_id(group)


def _close_unused(bound: Sequence[BoundSocket], used: Sequence[BoundSocket]) -> None:
    for old in bound:
        if all(old.socket is not new.socket for new in used):
            old.close()


def _file_of(path: str) -> tuple[int, int]:
    state = Path(path).stat()
    return state.st_dev, state.st_ino


def _user_id(name: str | None) -> int:
    """Return the id of the user *name*, -1 for None. Raises ConfigurationError."""
    if name is None or name.isdigit():
        return -1 if name is None else int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise ConfigurationError(f"server: owner of a Unix socket: there is no user {name!r} on this host") from None


def _group_id(name: str | None) -> int:
    """Return the id of the group *name*, -1 for None. Raises ConfigurationError."""
    if name is None or name.isdigit():
        return -1 if name is None else int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigurationError(f"server: owner of a Unix socket: there is no group {name!r} on this host") from None
