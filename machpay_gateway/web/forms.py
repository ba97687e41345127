"""Forms of browsers and OAuth clients: application/x-www-form-urlencoded, with size limits."""

from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from machpay_gateway.web.bodies import media_types, read_limited_body

MAX_FORM_BYTES = 64 * 1024
_MAX_FIELDS = 200
_TYPE = "application/x-www-form-urlencoded"

Pairs = list[tuple[str, str]]


async def read_form(request: Request) -> Pairs | str:
    """Return the fields of the body in their order, or what is wrong with it."""
    if media_types(request) != [_TYPE]:
        return f"the body is not {_TYPE}"
    try:
        body = await read_limited_body(request, MAX_FORM_BYTES)
    except ClientDisconnect:
        return "the body is incomplete"
    return f"the body is over {MAX_FORM_BYTES} bytes" if body is None else parse_form(body)


def parse_form(text: bytes) -> Pairs | str:
    """Return the fields of a form or a query, or what is wrong with it.

    Bytes that are not UTF-8 become surrogates: values that are sent back, such as `state`, must not change.
    """
    try:
        return parse_qsl(
            text.decode("ascii"), keep_blank_values=True, errors="surrogateescape", max_num_fields=_MAX_FIELDS
        )
    except UnicodeDecodeError:
        return "it has bytes that are not percent-encoded"
    except ValueError:
        return f"it has over {_MAX_FIELDS} fields"


def is_utf8(pairs: Pairs) -> bool:
    """Return whether *pairs* were sent in UTF-8, as browsers send the forms of our pages."""
    try:
        "".join(name + value for name, value in pairs).encode()
    except UnicodeEncodeError:
        return False
    return True
