"""Scopes: those that a credential holds, and the expressions that routes require."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.text import contains_secret, quote_value

# RFC 6749 §3.3 scope-token, without the `|` of scope expressions.
_NAME = re.compile(r"[!#-\[\]-{}~]{1,128}")
_VERY_CLOSE = 0.9  # one letter of ten more, less or other
_CLOSE = 0.75  # of `get_close_matches`: `orders:raed` for `orders:read`, and not `orders:read` for `account:read`

# RFC 6749 allows these in names. In a setting they are a list or an expression of another language, and no caller holds
# a scope of that name: every one would be refused.
_SEPARATORS = re.compile(r"[,;]|^\(|\)$")
_OPERATORS = frozenset({"and", "or", "not", "&", "&&", "+", "/"})

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

    A list of names means all of them. Raises ConfigurationError for a name that RFC 6749 §3.3 does not allow, and for
    commas, `and`, `&&` and the like.
    """
    if not isinstance(text, str):
        return _all_of(text)
    expression = text
    if not expression.strip():
        return ScopeExpression()
    alternatives = [part.split() for part in expression.split("|")]
    for names in alternatives:
        if not names:
            raise ConfigurationError(
                f"Scope expression {expression!r} has an empty alternative beside its `|`: write 'a | b' for one of two"
            )
        for name in names:
            check_configured_scope(name, within=expression)
    return ScopeExpression(tuple(frozenset(names) for names in alternatives))


def _all_of(names: Iterable[str]) -> ScopeExpression:
    """Return the expression that requires all *names*; a `|` in a list is refused, since it would mean any of them."""
    if not isinstance(names, Iterable):
        raise ConfigurationError(f"{names!r} is neither a scope expression nor a list of scope names")
    names = tuple(names)
    for name in names:
        if not isinstance(name, str):
            raise ConfigurationError(f"{name!r} is not a scope name")
        check_configured_scope(name)
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


def check_configured_scope(name: str, *, within: str | None = None) -> None:
    """Raise ConfigurationError unless the settings may name the scope *name*, a part of the expression *within*.

    Stricter than `check_scope_name`: what looks like a separator or an operator is none, and would be part of the name.
    """
    if within is None and len(names := re.split(r"[\s,;|]+", name.strip(" \t,;|"))) > 1 and all(names):
        listed = ", ".join(f'"{each}"' for each in names)
        raise ConfigurationError(f"{name!r} is not a scope name: each is an item of its own, as in [{listed}]")
    if _SEPARATORS.search(name) or name.lower() in _OPERATORS:
        text = name if within is None else within
        names = [each for each in re.split(r"[\s,;()&+|]+", text) if each and each.lower() not in _OPERATORS]
        raise ConfigurationError(f"{text!r} is not a scope expression: {_describe_expressions(names)}")
    check_scope_name(name)


def _describe_expressions(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"did you mean {names[0]!r}?"
    first, second = names[:2] or ("a", "b")
    return f"'{first} {second}' requires both, '{first} | {second}' one of them"


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


def similar_scope(name: str, defined: Iterable[str]) -> str | None:
    """Return the *defined* scope that *name* is most like, None if it is one of them, or like none."""
    defined = list(defined)
    if name in defined or wildcard_of(name) == name:
        return None
    close = get_close_matches(name, defined, n=1, cutoff=_VERY_CLOSE)
    return close[0] if close else None


def unknown_scopes(names: Iterable[str], defined: Collection[str]) -> list[str]:
    """Return those of *names* that are neither *defined* nor a wildcard over a defined scope."""
    if not (others := [name for name in names if name not in defined]):
        return []
    wildcards = {wildcard_of(name) for name in defined} - {""}
    return [name for name in others if name not in wildcards]


@dataclass(frozen=True, slots=True)
class ScopeSetting:
    """Where scopes are defined, for messages: the settings *file*, and the *form* that `scopes` has in it by now.

    *has_application* is whether `application` names the one that requires scopes too.
    """

    file: Path = Path("machpay.toml")
    form: Literal["table", "list", "none"] = "none"
    has_application: bool = False

    def way_out(self, name: str, *, for_operator: bool) -> str:
        """Return how *name* is defined. Callers of an API learn the name of the file only, operators its path too."""
        line = f'"{name}" = "What it allows"'
        if not for_operator:
            return f"An operator defines it in {self.file.name}, below [scopes]: {line}."
        if self.form == "list":
            text = f'To define it, add "{name}" to the list `scopes`, in {self.file} or in Python.'
        elif self.form == "table":
            text = f"To define it, add below [scopes] in {self.file}:\n\n{line}"
        else:
            text = f"To define it, add to {self.file}:\n\n[scopes]\n{line}"
        if self.has_application:
            return text
        return (
            f"{text}\n\nWhat a FastAPI application requires is defined if the top of {self.file} names it, as in:\n\n"
            'application = "main:app"'
        )


class DefinedScopes(Collection[str]):
    """The scopes that credentials may hold, in order, each once. Grows by what a guarded application requires."""

    def __init__(self, names: Iterable[str], setting: ScopeSetting | None = None) -> None:
        """Have *names*. *setting* is where others are defined."""
        self._names = tuple(dict.fromkeys(names))
        self._setting = setting or ScopeSetting()
        self._sources: list[Callable[[], Iterable[str]]] = []

    @classmethod
    def of(cls, names: Iterable[str]) -> "DefinedScopes":
        """Return *names*, which may be defined scopes already."""
        return names if isinstance(names, cls) else cls(names)

    def __contains__(self, name: object) -> bool:
        return name in self._names or any(name in set(source()) for source in self._sources)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._names, *(name for source in self._sources for name in source())]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def include(self, source: Callable[[], Iterable[str]]) -> None:
        """Have the names that *source* returns too. It is called when a name is not among the others."""
        self._sources.append(source)

    def without(self, names: Collection[str]) -> "DefinedScopes":
        """Return those scopes that are not among *names*, also of those to come."""
        left = DefinedScopes((), self._setting)
        left.include(lambda: [name for name in self if name not in names])
        return left

    def plus(self, names: Iterable[str]) -> "DefinedScopes":
        """Return these scopes and *names*."""
        return DefinedScopes([*self, *names], self._setting)

    def describe_undefined(self, name: str, *, for_operator: bool) -> str:
        """Return the message about *name*, which is not defined: what may be meant, and how it is defined."""
        names = sorted(self)
        text = f"Scope {quote_value(name)} is not defined; known scopes: {', '.join(names)}."
        if close := get_close_matches(name, names, n=1, cutoff=_CLOSE):
            text += f" Did you mean {quote_value(close[0])}?"
        if not _is_definable(name):
            return text
        return ("\n" if for_operator else " ").join((text, self._setting.way_out(name, for_operator=for_operator)))


def _is_definable(name: str) -> bool:
    try:
        check_configured_scope(name)
    except ConfigurationError:
        return False
    return "*" not in name and not contains_secret(name)
