"""A call as a value with everything that is sent, so that a retry sends the same bytes.

Arguments are validated and serialized here, before anything is sent.
"""

import datetime as dt
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote

from machpay._credential import Authorization
from machpay._not_given import NotGiven
from machpay._version import VERSION
from machpay.errors import InvalidArgumentError

USER_AGENT = f"machpay-python/{VERSION}"
_REPEATABLE = frozenset({"GET", "HEAD"})
_HEADER_VALUE = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class Call:
    """One logical call, regardless of the number of attempts.

    *server* is the option that names the server; the authorization server receives forms. A retry is allowed for
    *repeatable_seconds* after the server may have received the call.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = field(default=None, repr=False)
    idempotency_key: str | None = None
    if_match: str | None = None
    server: Literal["base_url", "auth_url"] = "base_url"
    repeatable_seconds: float = math.inf

    def __post_init__(self) -> None:
        for name, value in (("idempotency_key", self.idempotency_key), ("if_match", self.if_match)):
            if value is not None and not _HEADER_VALUE.fullmatch(value):
                raise InvalidArgumentError(f"{name}={value!r} is not 1–255 visible ASCII characters.")

    @property
    def needs_idempotency_key(self) -> bool:
        """Whether the call is not idempotent and has no idempotency key yet."""
        return self.server == "base_url" and self.method not in _REPEATABLE and self.idempotency_key is None


def headers_for(call: Call, authorization: Authorization) -> dict[str, str]:
    """Return the headers of each attempt at *call*."""
    headers = {"Accept": "application/json", "User-Agent": USER_AGENT}
    if authorization.header is not None:
        headers["Authorization"] = authorization.header
    if call.body is not None:
        headers["Content-Type"] = (
            "application/json" if call.server == "base_url" else "application/x-www-form-urlencoded"
        )
    if call.idempotency_key is not None:
        headers["Idempotency-Key"] = call.idempotency_key
    if call.if_match is not None:
        headers["If-Match"] = call.if_match
    return headers


def path_of(template: str, **segments: object) -> str:
    """Return *template* with its *segments* filled in, encoded so that each stays one segment."""
    return template.format(**{name: _segment(name, value) for name, value in segments.items()})


def query_of(**parameters: str | int | None) -> tuple[tuple[str, str], ...]:
    """Return the *parameters* that are not None."""
    return tuple((name, str(value)) for name, value in parameters.items() if value is not None)


def json_of(members: Mapping[str, object]) -> bytes:
    """Return *members* as JSON, without those that are NOT_GIVEN."""
    present = {name: value for name, value in members.items() if not isinstance(value, NotGiven)}
    try:
        return json.dumps(present, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidArgumentError(f"{', '.join(present)}: there is a value that JSON cannot hold: {exc}.") from None


def strings_of(name: str, value: object) -> object:
    """Return *value* as a list of strings. A single string is refused: it would be sent letter by letter."""
    if value is None or isinstance(value, NotGiven):
        return value
    if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__iter__"):
        raise InvalidArgumentError(f"{name}={value!r} is not a list of strings; write {name}=[…].")
    items = list(value)
    for item in items:
        if not isinstance(item, str):
            raise InvalidArgumentError(f"{name} holds {item!r}, which is not a string.")
    return items


def moment_of(name: str, value: dt.datetime | str | NotGiven | None) -> str | NotGiven | None:
    """Return *value* in RFC 3339. A datetime without a time zone could be any of 38 moments, and is refused."""
    if not isinstance(value, dt.datetime):
        return value
    if value.utcoffset() is None:
        raise InvalidArgumentError(f"{name}={value!r} has no time zone; datetime.now(timezone.utc) has one.")
    return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


def _segment(name: str, value: object) -> str:
    """Return *value* percent-encoded. Raises InvalidArgumentError if it would change the path."""
    if not isinstance(value, str) or not value:
        raise InvalidArgumentError(f"{name}={value!r} is not an identifier.")
    if value in {".", ".."} or "/" in value or "\\" in value:
        raise InvalidArgumentError(f"{name}={value!r} is not an identifier: it would change the path.")
    try:
        return quote(value, safe="")
    except UnicodeEncodeError:
        raise InvalidArgumentError(f"{name}={value!r} is not an identifier: it is not valid Unicode.") from None
