"""The end of a connection whose other side may be gone already."""

import os
import socket
import struct
from asyncio import Transport

_RESET = struct.pack("ii", 1, 0)  # do not linger at all: what closes then is answered by a reset
_MOST_UNREAD = 1024 * 1024  # bytes


def end_writing(transport: Transport) -> bool:
    """End what is sent over *transport*; tell whether that can be: not over TLS, nor to whoever is gone."""
    if not transport.can_write_eof():
        return False
    try:
        transport.write_eof()
    except OSError:
        return False  # a reset came since, by what was written just now, and asyncio's own loop has not seen it yet
    return True


def reset(transport: Transport) -> None:
    """Close *transport* at once, so that the other side can tell that it has not got all."""
    if (connection := transport.get_extra_info("socket")) is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


def unread_of(transport: Transport) -> bytes:
    """Return what the other side of the broken *transport* has sent and nobody has read: over TLS nothing can be."""
    if transport.get_extra_info("ssl_object") is not None:
        return b""
    try:
        return os.read(transport.get_extra_info("socket").fileno(), _MOST_UNREAD)
    except OSError:
        return b""
