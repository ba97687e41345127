"""Bodies that are small by their nature, read whole."""

from starlette.requests import Request


async def read_limited_body(request: Request, limit: int) -> bytes | None:
    """Return the body, None when it is over *limit* bytes. Raises ClientDisconnect when it ends before its time."""
    body = bytearray()  # bytes would be copied with every chunk, however small the sender makes them
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)


def media_types(request: Request) -> list[str]:
    """Return the media types that the request declares, without parameters: one, unless somebody has more to say."""
    return [value.partition(";")[0].strip().lower() for value in request.headers.getlist("content-type")]
