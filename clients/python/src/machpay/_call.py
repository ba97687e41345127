"""A call as a value: everything that is sent, made once, so that a retry repeats it to the byte.

Arguments are turned into the wire's form here, and what could not be meant is refused before anything is sent.
"""

import datetime as dt
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote

from machpay._credential import Presented
from machpay._given import NotGiven
from machpay._version import VERSION
from machpay.errors import InvalidArgumentError

USER_AGENT = f"machpay-python/{VERSION}"
_REPEATABLE = frozenset({"GET", "HEAD"})
_HEADER_VALUE = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class Call:
    """One logical call, whatever number of attempts it takes.

    *at* names the option that says where it goes; to the authorization server go forms. For *repeatable_seconds*
    after it may have been received, it may be sent again.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = field(default=None, repr=False)
    idempotency_key: str | None = None
    if_match: str | None = None
    at: Literal["base_url", "auth_url"] = "base_url"
    repeatable_seconds: float = math.inf

    def __post_init__(self) -> None:
        for name, value in (("idempotency_key", self.idempotency_key), ("if_match", self.if_match)):
            if value is not None and not _HEADER_VALUE.fullmatch(value):
                raise InvalidArgumentError(f"{name}={value!r} is not 1–255 visible ASCII characters.")

    @property
    def needs_idempotency_key(self) -> bool:
        """Whether to send it twice could do twice what it does, unless it carries a key."""
        return self.at == "base_url" and self.method not in _REPEATABLE and self.idempotency_key is None


def headers_for(call: Call, presented: Presented) -> dict[str, str]:
    """Return the headers of each attempt at *call*."""
    headers = {"Accept": "application/json", "User-Agent": USER_AGENT}
    if presented.authorization is not None:
        headers["Authorization"] = presented.authorization
    if call.body is not None:
        headers["Content-Type"] = "application/json" if call.at == "base_url" else "application/x-www-form-urlencoded"
    if call.idempotency_key is not None:
        headers["Idempotency-Key"] = call.idempotency_key
    if call.if_match is not None:
        headers["If-Match"] = call.if_match
    return headers


def path_of(template: str, **segments: object) -> str:
    """Return *template* with its *segments* filled in, each of them staying one segment."""
    return template.format(**{name: _segment(name, value) for name, value in segments.items()})


def query_of(**parameters: str | int | None) -> tuple[tuple[str, str], ...]:
    """Return the *parameters* that are given."""
    return tuple((name, str(value)) for name, value in parameters.items() if value is not None)


def json_of(members: Mapping[str, object]) -> bytes:
    """Return *members* as JSON, without those that are not given."""
    given = {name: value for name, value in members.items() if not isinstance(value, NotGiven)}
    try:
        return json.dumps(given, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidArgumentError(f"{', '.join(given)}: there is a value that JSON cannot hold: {exc}.") from None


def strings_of(name: str, value: object) -> object:
    """Return *value* as a list of strings. A single string is a slip: it would be sent letter by letter."""
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
    """Refuse what would lead to another path; percent-encode the rest."""
    if not isinstance(value, str) or not value:
        raise InvalidArgumentError(f"{name}={value!r} is not an identifier.")
    if value in {".", ".."} or "/" in value or "\\" in value:
        raise InvalidArgumentError(f"{name}={value!r} is not an identifier: it would change the path.")
    try:
        return quote(value, safe="")
    except UnicodeEncodeError:
        raise InvalidArgumentError(f"{name}={value!r} is not an identifier: it is not valid Unicode.") from None
