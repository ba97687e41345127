"""A call as a value with everything that is sent, so that a retry sends the same bytes.

Arguments are validated and serialized here, before anything is sent.
"""

import datetime as dt
import json as _json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypedDict
from urllib.parse import parse_qsl, quote

from machpay._credential import Authorization
from machpay._not_given import NotGiven
from machpay._version import VERSION
from machpay.errors import InvalidArgumentError

USER_AGENT = f"machpay-python/{VERSION}"
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # RFC 9110 §9.2.2
_METHOD = re.compile(r"[A-Z]{1,20}")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]{1,255}")
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_TEXT = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?|")
# The client sets them itself: another credential, or another framing, would be sent beside its own.
_OWN_HEADERS = {
    "authorization": "pass api_key or access_token",
    "content-length": "it is set automatically",
    "dpop": "pass dpop_key",
    "host": "pass base_url",
    "idempotency-key": "pass idempotency_key",
    "transfer-encoding": "it is set automatically",
}


class CallOptions(TypedDict, total=False):
    """What every call takes, instead of the options of the client.

    *timeout* is in seconds for one attempt, *headers* are sent in addition.
    """

    timeout: float | None
    max_retries: int | None
    headers: Mapping[str, str] | None


class ChangeOptions(CallOptions, total=False):
    """What every call takes that changes something. *idempotency_key* survives a restart of your process."""

    idempotency_key: str | None


_OPTION_NAMES = frozenset(ChangeOptions.__annotations__)


@dataclass(frozen=True, slots=True)
class Call:
    """One logical call, regardless of the number of attempts.

    *server* is the option that names the server. A retry is allowed for
    *repeatable_seconds* after the server may have received the call. *is_deduplicated* tells that the server performs
    calls with the same idempotency key once, so the call gets one. *timeout* and *max_retries* override those of the
    client.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = field(default=None, repr=False)
    idempotency_key: str | None = None
    if_match: str | None = None
    server: Literal["base_url", "auth_url"] = "base_url"
    repeatable_seconds: float = math.inf
    is_deduplicated: bool = True
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    timeout: float | None = None
    max_retries: int | None = None
    accept: str = "application/json"
    content_type: str | None = "application/json"  # of the body, if there is one

    def __post_init__(self) -> None:
        given: tuple[tuple[str, object], ...] = (("idempotency_key", self.idempotency_key), ("if_match", self.if_match))
        for name, value in given:
            if value is not None and not (isinstance(value, str) and _HEADER_VALUE.fullmatch(value)):
                raise InvalidArgumentError(f"{name}={value!r} is not 1–255 visible ASCII characters.")

    @property
    def needs_idempotency_key(self) -> bool:
        """Whether the call is not idempotent and has no idempotency key yet."""
        return self.server == "base_url" and self.method not in _IDEMPOTENT and self.idempotency_key is None

    def using(self, options: CallOptions | ChangeOptions) -> "Call":
        """Return the call with the *options* that a user gave. Raises TypeError for unknown ones."""
        if unknown := options.keys() - _OPTION_NAMES:
            raise TypeError(f"{min(unknown)!r} is not an argument of this call")
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        if "headers" in given:
            given["headers"] = (*self.headers, *header_pairs("headers", given["headers"]))
        return replace(self, **given)


def request_call(
    method: str,
    path: str,
    *,
    params: Mapping[str, object] | None,
    json: object,
    content: bytes | str | None,
    accept: str,
) -> Call:
    """Return a call to any endpoint of the API. Nothing promises that the endpoint knows idempotency keys."""
    if not _METHOD.fullmatch(str(method).upper()):
        raise InvalidArgumentError(f"method={method!r} is not a method of HTTP.")
    if not str(path).startswith("/") or not path.isprintable() or "#" in path:
        raise InvalidArgumentError(f"path={path!r} has to start with a slash: requests go to base_url only.")
    if not isinstance(json, NotGiven) and content is not None:
        raise InvalidArgumentError("Both json and content are given; pass one of them.")
    path, _, query = path.partition("?")
    pairs = (*parse_qsl(query, keep_blank_values=True), *_parameters(params))
    body = content.encode() if isinstance(content, str) else content
    content_type = "text/plain; charset=utf-8" if isinstance(content, str) else None
    if not isinstance(json, NotGiven):
        body, content_type = encode_json("json", json), "application/json"
    return Call(method.upper(), path, pairs, body, is_deduplicated=False, accept=accept, content_type=content_type)


def headers_for(
    call: Call, authorization: Authorization, defaults: tuple[tuple[str, str], ...] = ()
) -> list[tuple[str, str]]:
    """Return the headers of each attempt at *call*. Those of the call override *defaults*, which override ours."""
    headers = {"accept": ("Accept", call.accept), "user-agent": ("User-Agent", USER_AGENT)}
    if call.body is not None and call.content_type is not None:
        headers["content-type"] = ("Content-Type", call.content_type)
    own = {
        "Authorization": authorization.header,
        "Idempotency-Key": call.idempotency_key,
        "If-Match": call.if_match,
    }
    given = (*defaults, *call.headers, *((name, value) for name, value in own.items() if value is not None))
    headers |= {name.lower(): (name, value) for name, value in given}
    return list(headers.values())


def header_pairs(name: str, headers: object) -> tuple[tuple[str, str], ...]:
    """Return *headers* validated. Errors show no value, which may be a secret."""
    if not isinstance(headers, Mapping):
        raise InvalidArgumentError(f"{name} is a {type(headers).__name__}, and has to be a mapping of strings.")
    for header, value in headers.items():
        if not isinstance(header, str) or not _HEADER_NAME.fullmatch(header):
            raise InvalidArgumentError(f"{name}: {header!r} is not the name of a header.")
        if way_out := _OWN_HEADERS.get(header.lower()):
            raise InvalidArgumentError(f"{name} may not hold {header}: {way_out}.")
        if not isinstance(value, str) or not _HEADER_TEXT.fullmatch(value):
            raise InvalidArgumentError(f"{name}: the value of {header} is not a line of ASCII characters.")
    return tuple(headers.items())


def path_of(template: str, **segments: object) -> str:
    """Return *template* with its *segments* filled in, encoded so that each stays one segment."""
    return template.format(**{name: _segment(name, value) for name, value in segments.items()})


def query_of(**parameters: str | int | None) -> tuple[tuple[str, str], ...]:
    """Return the *parameters* that are not None."""
    return tuple((name, str(value)) for name, value in parameters.items() if value is not None)


def json_of(members: Mapping[str, object]) -> bytes:
    """Return *members* as JSON, without those that are NOT_GIVEN."""
    present = {name: value for name, value in members.items() if not isinstance(value, NotGiven)}
    return encode_json(", ".join(present), present)


def encode_json(names: str, value: object) -> bytes:
    """Return *value* as JSON. *names* are its arguments, for the error if it cannot be."""
    try:
        return _json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidArgumentError(f"{names}: there is a value that JSON cannot hold: {exc}.") from None


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


def _parameters(params: Mapping[str, object] | None) -> Iterator[tuple[str, str]]:
    """Yield the pairs of *params*, a list as several. None is left out, and booleans are written as in JSON."""
    for name, value in (params or {}).items():
        for item in value if isinstance(value, list | tuple) else [value]:
            if item is not None:
                yield name, str(item).lower() if isinstance(item, bool) else str(item)


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
