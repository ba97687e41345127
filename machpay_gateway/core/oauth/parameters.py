"""Parameters of OAuth requests: each may be sent once, with few exceptions (RFC 6749 §3.1, §3.2)."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

REPEATABLE = frozenset({"resource"})  # RFC 8707 §2


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a request. One without a value counts as left out; unknown ones are ignored."""

    values: Mapping[str, tuple[str, ...]] = field(repr=False)

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> "Parameters":
        """Return the parameters in *pairs*."""
        values: dict[str, tuple[str, ...]] = {}
        for name, value in pairs:
            values[name] = (*values.get(name, ()), value)
        return cls(values)

    @property
    def repeated(self) -> str | None:
        """The name of the first parameter that is repeated and must not be."""
        return next((name for name, values in self.values.items() if len(values) > 1 and name not in REPEATABLE), None)

    def get(self, name: str) -> str | None:
        """Return the value; None without a value, or when it is repeated and therefore ambiguous."""
        values = self.values.get(name, ())
        return values[0] if len(values) == 1 and values[0] else None

    def all(self, name: str) -> tuple[str, ...]:
        """Return all values that are not empty."""
        return tuple(value for value in self.values.get(name, ()) if value)

    def __contains__(self, name: str) -> bool:
        return bool(self.all(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)
