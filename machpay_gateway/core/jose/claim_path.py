"""Where a value is within the claims of a token: `sub`, `realm_access.roles`, `["kubernetes.io", "namespace"]`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from machpay_gateway.core.errors import ConfigurationError

# As in settings: a name, a path with dots, or the list of its parts.
ClaimName = str | Sequence[str]


class Absent(Enum):
    """The value of a claim that a token does not have; JSON's null is a value."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT


class WrongClaimError(ValueError):
    """Why a claim cannot be used, for the log: names its path and not its value."""


@dataclass(frozen=True, slots=True)
class ClaimPath:
    """The names that lead to a claim, from the outermost object inward."""

    parts: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(self.parts)

    def value_in(self, claims: Mapping[str, object]) -> object:
        """Return the value in *claims*, or ABSENT. Raises WrongClaimError if the path leads through a non-object."""
        value: object = claims if isinstance(claims, dict) else dict(claims)
        for depth, part in enumerate(self.parts):
            if not isinstance(value, dict):  # as JSON's objects are; the check for any mapping is slow
                msg = f"claim {ClaimPath(self.parts[:depth])} is not an object"
                raise WrongClaimError(msg)
            value = value.get(part, ABSENT)
            if value is ABSENT:
                break
        return value

    def text_in(self, claims: Mapping[str, object]) -> str | Absent:
        """Return the string in *claims*; raises WrongClaimError for another type, which is never converted."""
        value = self.value_in(claims)
        if isinstance(value, str) or value is ABSENT:
            return value
        msg = f"claim {self} is not a string"
        raise WrongClaimError(msg)

    def texts_in(self, claims: Mapping[str, object]) -> str | Sequence[str] | Absent:
        """Return the string, or the array of strings, in *claims*; raises WrongClaimError for another type."""
        value = self.value_in(claims)
        if isinstance(value, str) or value is ABSENT:
            return value
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return value
        msg = f"claim {self} is neither a string nor a list of strings"
        raise WrongClaimError(msg)


def parse_claim_path(name: object) -> ClaimPath:
    """Return the path that *name* is: text, in which dots lead inward, or the list of its parts.

    A text with `/` or `:` is one name, since names such as `https://example.com/roles` have dots of their own. Raises
    ConfigurationError.
    """
    if isinstance(name, str):
        parts: Sequence[object] = [name] if "/" in name or ":" in name else name.split(".")
    else:
        parts = list(name) if isinstance(name, Collection) and not isinstance(name, Mapping | set | frozenset) else []
    texts = tuple(part for part in parts if isinstance(part, str) and part)
    if not texts or len(texts) < len(parts):
        raise ConfigurationError(
            f"{name!r} is not a claim: use a name, a path such as 'realm_access.roles', or a list of its parts such as "
            "['kubernetes.io', 'namespace']"
        )
    return ClaimPath(texts)


def parse_claim_paths(names: object) -> tuple[ClaimPath, ...]:
    """Return the path of each of *names*: one text, or a list of several texts and lists. Raises ConfigurationError."""
    if isinstance(names, str):
        return (parse_claim_path(names),)
    if not isinstance(names, Sequence) or not names:
        raise ConfigurationError(
            f"{names!r} is neither a claim nor a list of claims: write it as in 'permissions', or ['scope', "
            "['resource_access', 'my.client', 'roles']]"
        )
    return tuple(map(parse_claim_path, names))
