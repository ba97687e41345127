"""Rules for headers of requests to upstreams, and of their responses: set, add and remove."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from machpay_gateway.core.brand import MACHPAY
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.network.cookies import sets_own_cookie
from machpay_gateway.core.network.trusted_headers import ROUTING, hyphenate

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")  # RFC 9110 §5.6.2
_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?")  # §5.5, in ASCII and without blanks at the ends
_IDENTITY = MACHPAY.header_prefix.lower()  # that of a brand is checked with the brand
_PARTS = frozenset({"set", "add", "remove"})
_FRAMING = "it frames the message, or belongs to one connection"
_FORWARDING = "the gateway says where a request comes from"
_REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "connection", "content-length", "expect", "http2-settings", "keep-alive", "proxy-authenticate",
            "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
        ),
        _FRAMING,
    ),
    **dict.fromkeys(
        ("forwarded", "x-forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix",
         "x-forwarded-proto"),
        _FORWARDING,
    ),
    **dict.fromkeys(ROUTING, "frameworks route by it instead of by the authorized path and method"),
    "via": "leave it out with via = false",
    "host": "use the setting host",
    "x-request-id": "the gateway writes it",
    "traceparent": "the gateway writes it with traces",
    "tracestate": "the gateway writes it with traces",
    "machpay-cost": "it charges units",
}  # fmt: skip
_REFUSED_IN_RESPONSES: Mapping[str, str] = {
    "date": "RFC 9110 §6.6.1 requires it",
    **dict.fromkeys(("ratelimit", "ratelimit-policy", "retry-after", "x-ratelimit-limit", "x-ratelimit-remaining",
                     "x-ratelimit-reset"), "the gateway writes it"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class HeaderRules:
    """What is changed of the headers: those with *removed* names are dropped, then *fields* are appended.

    Names in *removed* are as `hyphenate` has them: CGI does not distinguish the others from these.
    """

    removed: frozenset[str] = frozenset()
    fields: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # a value may be a secret

    def then(self, rules: "HeaderRules") -> "HeaderRules":
        """Return these rules, followed by *rules*."""
        left = tuple(each for each in self.fields if hyphenate(each[0]) not in rules.removed)
        return HeaderRules(self.removed | rules.removed, left + rules.fields)

    def apply(self, start: bytes) -> bytes:
        """Return *start*, a first line and header lines that each end in CR LF, with these rules applied."""
        if self.removed:
            first, *lines = start.split(b"\r\n")[:-1]
            lines = [line for line in lines if hyphenate(line.partition(b":")[0].decode("latin-1")) not in self.removed]
            start = b"\r\n".join((first, *lines, b""))
        return start + b"".join(f"{name}: {value}\r\n".encode() for name, value in self.fields)


def parse_header_rules(rules: object, *, of_responses: bool = False) -> HeaderRules:
    """Return the rules in a table with `set`, `add` and `remove`, for requests or *of_responses*.

    Raises ConfigurationError for a name or value that is invalid, and for headers that are the gateway's own.
    """
    if isinstance(rules, HeaderRules):
        return rules
    if not isinstance(rules, Mapping) or not _PARTS.issuperset(rules):
        raise ConfigurationError(
            f'{rules!r} is not a table of set, add and remove, such as {{ set = {{ "X-Env" = "prod" }} }}'
        )
    removed, replaced, added = rules.get("remove", ()), rules.get("set", {}), rules.get("add", {})
    if isinstance(removed, str) or not isinstance(removed, Sequence):
        raise ConfigurationError(f"remove is a list of names, not {removed!r}")
    names = [_checked_name(name, of_responses=of_responses) for name in (*removed, *_table("set", replaced))]
    fields = [*_fields("set", replaced), *_fields("add", added)]
    for name, value in fields:
        _checked_name(name, of_responses=of_responses)
        if of_responses and name.lower() == "set-cookie" and sets_own_cookie(value.encode()):
            raise ConfigurationError("Set-Cookie: the cookie is one of the gateway's own")
    return HeaderRules(frozenset(map(hyphenate, names)), tuple(fields))


def _checked_name(name: object, *, of_responses: bool) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(f"{name!r} is not the name of a header")
    plain = hyphenate(name)
    reason = (_REFUSED_IN_RESPONSES.get(plain) if of_responses else None) or _REFUSED.get(plain)
    if reason is None and plain.startswith(_IDENTITY):
        reason = "the gateway says who the caller is"
    if reason is None and of_responses and plain.startswith("access-control-"):
        reason = "use [cors]"
    if reason is not None:
        raise ConfigurationError(f"{name!r} cannot be changed: {reason}")
    return name


def _table(part: str, table: object) -> Mapping[str, object]:
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"{part} is a table of names and values, not {table!r}")
    return table


def _fields(part: str, table: object) -> Iterator[tuple[str, str]]:
    for name, value in _table(part, table).items():
        for text in (value,) if isinstance(value, str) else value if isinstance(value, list | tuple) else (None,):
            # Not the value itself: it may be a secret.
            if not isinstance(text, str) or not _VALUE.fullmatch(text):
                raise ConfigurationError(
                    f"{part}: the value of {name!r} is not visible ASCII, or a list of such values"
                )
            yield name, text
