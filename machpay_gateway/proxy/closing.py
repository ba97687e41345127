"""The end of a connection whose other side may be gone already."""

import os
from asyncio import Transport

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


def unread_of(transport: Transport) -> bytes:
    """Return what the other side of the broken *transport* has sent and nobody has read: over TLS nothing can be."""
    if transport.get_extra_info("ssl_object") is not None:
        return b""
    try:
        return os.read(transport.get_extra_info("socket").fileno(), _MOST_UNREAD)
    except OSError:
        return b""
