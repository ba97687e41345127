"""Request bodies with a size limit, read into memory."""

from starlette.requests import Request


async def read_limited_body(request: Request, limit: int) -> bytes | None:
    """Return the body, None when it exceeds *limit* bytes. Raises ClientDisconnect when it is incomplete."""
    body = bytearray()  # appending to bytes would copy the whole body with every chunk
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)


def media_types(request: Request) -> list[str]:
    """Return the media types of all Content-Type fields, in lower case and without parameters."""
    return [value.partition(";")[0].strip().lower() for value in request.headers.getlist("content-type")]
