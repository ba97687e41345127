"""Sockets that a service manager has opened before it started this process: sd_listen_fds(3) of systemd."""

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.serving.listening import BoundSocket, Listening, socket_name
from machpay_gateway.settings.listeners import UNIX, Listener

VARIABLES = frozenset({"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"})
_FIRST_FILE = 3
_MANAGEMENT = "management"  # FileDescriptorName= of the socket for operators


class ActivatedSockets(NamedTuple):
    """The sockets for *callers*, and the one for operators; without any, the settings say where to listen."""

    callers: Sequence[socket.socket] = ()
    management: socket.socket | None = None


def activated_sockets(environ: Mapping[str, str]) -> ActivatedSockets:
    """Return the sockets that *environ* says this process has got. Raises ConfigurationError for what is none."""
    if environ.get("LISTEN_PID") != str(os.getpid()):  # they may be those of the process that started this one
        return ActivatedSockets()
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    callers, management = [], None
    for number in range(int(environ.get("LISTEN_FDS", "0"))):
        activated = _listening_socket(_FIRST_FILE + number)
        if names[number : number + 1] == [_MANAGEMENT]:
            management = activated
        else:
            callers.append(activated)
    return ActivatedSockets(callers, management)


def listening_on(sockets: Sequence[socket.socket], listeners: Sequence[Listener]) -> Listening:
    """Return the *sockets* with the options that *listeners* have for their addresses, if they have any."""
    bound, used = [], []
    for number, activated in enumerate(sockets):
        name = _name_of(activated)
        match = next((each for each in listeners if name in map(str, each.places)), None)
        listener = Listener(name) if match is None else replace(match, address=name)
        used.append(listener)
        bound.append(BoundSocket(activated, listener.places[-1], number))
    return Listening(used, bound)


def _listening_socket(file: int) -> socket.socket:
    try:
        activated = socket.socket(fileno=file)
        activated.set_inheritable(False)
        is_listening = activated.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as exc:
        raise ConfigurationError(f"LISTEN_FDS: file descriptor {file} is no socket ({exc.strerror})") from exc
    if activated.type != socket.SOCK_STREAM or not is_listening:
        raise ConfigurationError(
            f"LISTEN_FDS: file descriptor {file} does not listen for streams: use ListenStream= and Accept=no"
        )
    return activated


def _name_of(activated: socket.socket) -> str:
    if activated.family != socket.AF_UNIX:
        return socket_name(activated)
    path = activated.getsockname()
    return f"{UNIX}{path if isinstance(path, str) else os.fsdecode(path)}"
