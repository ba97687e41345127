"""Ending one direction of a connection whose other side may be gone already."""

from asyncio import Transport


def end_writing(transport: Transport) -> bool:
    """End what is sent over *transport*; tell whether that can be: not over TLS, nor to whoever is gone."""
    if not transport.can_write_eof():
        return False
    try:
        transport.write_eof()
    except OSError:
        return False  # a reset came since, by what was written just now, and asyncio's own loop has not seen it yet
    return True
