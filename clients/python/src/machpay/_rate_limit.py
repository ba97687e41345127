"""Parsing of RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-11).

Both are lists of structured fields (RFC 9651). Only what the draft uses is supported: strings or tokens with
parameters. A malformed header counts as missing, and is never an error: the response is still useful.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_STRING = r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"'
_BARE = r"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*"
_INTEGER = r"-?[0-9]{1,15}(?![0-9.])"
_OTHER = r"-?[0-9]{1,12}\.[0-9]{1,3}|:[A-Za-z0-9+/=]*:|\?[01]|@-?[0-9]{1,15}|%\"[^\"]*\""
_NAME = re.compile(f"({_STRING})|({_BARE})")
_PARAMETER = re.compile(rf"; *([a-z*][a-z0-9_\-.*]*)(?:=(?:({_STRING})|({_BARE})|({_INTEGER})|({_OTHER})))?")
_COMMA = re.compile(r"[ \t]*,[ \t]*")
_ESCAPED = re.compile(r"\\(.)")

Parameters = Mapping[str, str | int | None]


@dataclass(frozen=True, slots=True)
class RateLimitPolicy:
    """One limit, and how much of it is left. None means that the server did not send the value."""

    name: str
    quota: int | None = None
    window_seconds: int | None = None
    unit: str = "requests"
    remaining: int | None = None
    reset_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The limits that a request counted against: `rate_limit["minute"].remaining`."""

    policies: tuple[RateLimitPolicy, ...] = field(default=())

    def __getitem__(self, name: str) -> RateLimitPolicy:
        if (policy := self.get(name)) is None:
            names = ", ".join(policy.name for policy in self.policies)
            raise KeyError(f"There is no rate limit {name!r}; there are: {names}.")
        return policy

    def __iter__(self) -> Iterator[RateLimitPolicy]:
        return iter(self.policies)

    def __contains__(self, name: object) -> bool:
        return any(policy.name == name for policy in self.policies)

    def get(self, name: str) -> RateLimitPolicy | None:
        """Return the policy of that *name*, or None."""
        return next((policy for policy in self.policies if policy.name == name), None)


def rate_limit_from(policy_field: str | None, state_field: str | None) -> RateLimit | None:
    """Return the limits in *policy_field* (RateLimit-Policy) and *state_field* (RateLimit), or None without any."""
    limits, states = _items(policy_field), _items(state_field)
    if not limits and not states:
        return None
    names = dict.fromkeys((*limits, *states))  # in the server's order, each once
    return RateLimit(tuple(_policy(name, limits.get(name, {}), states.get(name, {})) for name in names))


def _policy(name: str, limit: Parameters, state: Parameters) -> RateLimitPolicy:
    unit = limit.get("qu")
    return RateLimitPolicy(
        name=name,
        quota=_integer(limit, "q"),
        window_seconds=_integer(limit, "w"),
        unit=unit if isinstance(unit, str) else "requests",
        remaining=_integer(state, "r"),
        reset_seconds=_integer(state, "t"),
    )


def _integer(parameters: Parameters, name: str) -> int | None:
    value = parameters.get(name)
    return value if isinstance(value, int) else None


def _items(raw: str | None) -> dict[str, Parameters]:
    """Return the items of a list with their parameters, or none if any part is malformed (RFC 9651 §4.2)."""
    text = (raw or "").strip(" ")
    items: dict[str, Parameters] = {}
    position = 0
    while position < len(text):
        name = _NAME.match(text, position)
        if name is None:
            return {}
        items[_text(name[1]) if name[1] else name[2]], position = _parameters(text, name.end())
        if position == len(text):
            return items
        comma = _COMMA.match(text, position)
        if comma is None or comma.end() == len(text):
            return {}
        position = comma.end()
    return items


def _parameters(text: str, position: int) -> tuple[Parameters, int]:
    """Return the parameters that start at *position*, and their end."""
    parameters: dict[str, str | int | None] = {}
    while match := _PARAMETER.match(text, position):
        key, string, token, integer, _ = match.groups()
        parameters[key] = _text(string) if string else int(integer) if integer else token
        position = match.end()
    return parameters, position


def _text(string: str) -> str:
    return _ESCAPED.sub(r"\1", string[1:-1])
