"""Closing a connection whose other side may be gone already."""

import os
import socket
import struct
from asyncio import Transport

_NO_LINGER = struct.pack("ii", 1, 0)  # closing then sends a reset
_MAX_UNREAD = 1024 * 1024  # bytes


def half_close(transport: Transport) -> bool:
    """End the sending direction of *transport*; return False if that is impossible: over TLS, or after a reset."""
    if not transport.can_write_eof():
        return False
    try:
        transport.write_eof()
    except OSError:
        return False  # the last write was answered by a reset, and asyncio's own loop has not noticed it yet
    return True


def reset(transport: Transport) -> None:
    """Close *transport* at once with a reset, so that the other side sees that the message is incomplete."""
    if (connection := transport.get_extra_info("socket")) is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()


def unread_bytes(transport: Transport) -> bytes:
    """Return what the broken *transport* has received and nobody has read; always b"" over TLS."""
    if transport.get_extra_info("ssl_object") is not None:
        return b""
    try:
        return os.read(transport.get_extra_info("socket").fileno(), _MAX_UNREAD)
    except OSError:
        return b""
