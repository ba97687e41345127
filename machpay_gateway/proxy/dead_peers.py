"""Dead peers: the kernel closes a connection whose other side has vanished without closing it."""

import socket

_PROBES = 3
_MILLISECONDS = 1000


def detect_dead_peers(sock: socket.socket, seconds: float) -> None:
    """Close the TCP connection of *sock* when its peer has not acknowledged anything for *seconds*; not if they are 0.

    Connections that a listening *sock* accepts inherit it (Linux, macOS). Other sockets stay as they are.

    A machine that lost its power or its network says nothing. An idle connection to it would stay open for ever, and
    one with unacknowledged bytes for 15 minutes; a WebSocket holds a concurrency slot meanwhile. Linux counts a peer
    that reads nothing, and so leaves bytes unsent, as one that acknowledges nothing.
    """
    if not seconds or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # The first probe after a third of the time without a segment, and the others in the rest of it.
    probe_seconds = max(int(seconds * 2 / 3 / _PROBES), 1)
    idle_seconds = max(int(seconds) - _PROBES * probe_seconds, 1)
    values = {
        "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE": idle_seconds,
        "TCP_KEEPINTVL": probe_seconds,
        "TCP_KEEPCNT": _PROBES,
        "TCP_USER_TIMEOUT": int(seconds * _MILLISECONDS),  # RFC 5482
    }
    for name, value in values.items():
        if (option := getattr(socket, name, None)) is not None:  # each where the system has it
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
