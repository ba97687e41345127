"""Dead peers: the kernel closes a connection whose other side has vanished without closing it."""

import socket

# A machine that lost its power or its network says nothing. Without these, an idle connection to it would stay open
# for ever, and one with unacknowledged bytes for 15 minutes; a WebSocket holds a concurrency slot meanwhile.
_IDLE_SECONDS = 15  # without a segment, before the first probe
_PROBE_SECONDS = 10
_PROBES = 3
DETECTION_SECONDS = _IDLE_SECONDS + _PROBES * _PROBE_SECONDS


def detect_dead_peers(sock: socket.socket) -> None:
    """Close the TCP connection of *sock* when its peer has not acknowledged anything for `DETECTION_SECONDS`.

    Connections that a listening *sock* accepts inherit it (Linux, macOS). Other sockets stay as they are.
    """
    if sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _TCP_OPTIONS:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


# RFC 9293 §3.8.4 keep-alives, and the user timeout of RFC 5482; each where the system has it.
_TCP_OPTIONS = tuple(
    (int(getattr(socket, name)), value)
    for name, value in (
        ("TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE", _IDLE_SECONDS),
        ("TCP_KEEPINTVL", _PROBE_SECONDS),
        ("TCP_KEEPCNT", _PROBES),
        ("TCP_USER_TIMEOUT", DETECTION_SECONDS * 1000),
    )
    if hasattr(socket, name)
)
