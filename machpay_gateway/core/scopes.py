"""Scopes: those that a credential holds, and the expressions that routes require."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from machpay_gateway.core.errors import ConfigurationError

# RFC 6749 §3.3 scope-token, without the `|` of scope expressions.
_NAME = re.compile(r"[!#-\[\]-{}~]{1,128}")

# The default scopes that a key can hold; `keys:manage` is for the key API.
KNOWN_SCOPES = ("skills:execute", "skills:list", "account:read", "account:write", "webhooks:manage", "keys:manage")


def wildcard_of(name: str) -> str:
    """Return the wildcard that covers *name*: `skills:*` for `skills:execute`.

    A wildcard covers one part: `a:*` covers `a:b` and not `a:b:c`. For a name without a colon it is the empty string,
    which nobody holds.
    """
    family, colon, _ = name.rpartition(":")
    return f"{family}:*" if colon else ""


@dataclass(frozen=True, slots=True)
class Scopes:
    """The scopes of a credential. `"skills:execute" in scopes` is also True for the wildcard `skills:*`."""

    names: frozenset[str] = frozenset()

    def __contains__(self, name: object) -> bool:
        return name in self.names or (isinstance(name, str) and wildcard_of(name) in self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.names))

    def __len__(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        return " ".join(self)


@dataclass(frozen=True, slots=True)
class ScopeExpression:
    """The scopes that a route requires: all names of any one of *alternatives*; without alternatives, none."""

    alternatives: tuple[frozenset[str], ...] = ()

    def __str__(self) -> str:
        return " | ".join(" ".join(sorted(names)) for names in self.alternatives)


def parse_scope_expression(text: str | Iterable[str]) -> ScopeExpression:
    """Parse `"a b"` (all of them), `"a | b"` (any of them), `"a b | c"` (both of the first, or the last).

    A list of names means all of them. Raises ConfigurationError for a name that RFC 6749 §3.3 does not allow.
    """
    if not isinstance(text, str):
        return _all_of(text)
    expression = text
    if not expression.strip():
        return ScopeExpression()
    alternatives = [part.split() for part in expression.split("|")]
    for names in alternatives:
        if not names:
            raise ConfigurationError(f"Scope expression {expression!r} has an empty alternative beside its `|`")
        for name in names:
            check_scope_name(name)
    return ScopeExpression(tuple(frozenset(names) for names in alternatives))


def _all_of(names: Iterable[str]) -> ScopeExpression:
    """Return the expression that requires all *names*; a `|` in a list is refused, since it would mean any of them."""
    if not isinstance(names, Iterable):
        raise ConfigurationError(f"{names!r} is neither a scope expression nor a list of scope names")
    names = tuple(names)
    for name in names:
        if not isinstance(name, str):
            raise ConfigurationError(f"{name!r} is not a scope name")
        check_scope_name(name)
    required = frozenset(names)
    return ScopeExpression((required,)) if required else ScopeExpression()


def check_scope_name(name: str) -> None:
    """Raise ConfigurationError unless *name* is a scope name, with `*` only as a whole last part (`skills:*`)."""
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is not a scope name: use printable characters without spaces, quotes, backslashes or `|`"
        )
    if "*" in name and ("*" in name[:-1] or not name.endswith(":*")):
        raise ConfigurationError(f"{name!r}: a `*` may only stand for the whole last part, as in `skills:*`")


def missing_scopes(required: ScopeExpression, held: Scopes) -> tuple[str, ...]:
    """Return the alternative of *required* of which *held* lacks the fewest names, whole; () if one is satisfied."""
    closest: tuple[int, tuple[str, ...]] | None = None
    for names in required.alternatives:
        if names <= held.names:
            return ()
        lacking = sum(name not in held for name in names)
        if not lacking:
            return ()
        if closest is None or lacking < closest[0]:
            closest = (lacking, tuple(sorted(names)))
    return closest[1] if closest else ()


def unknown_scopes(names: Iterable[str], defined: Iterable[str]) -> list[str]:
    """Return those of *names* that are neither *defined* nor a wildcard over a defined scope."""
    defined = set(defined)
    accepted = defined | {wildcard_of(name) for name in defined} - {""}
    return [name for name in names if name not in accepted]
