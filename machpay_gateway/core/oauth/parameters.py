"""Parameters of OAuth's requests: each at most once, but for those that say otherwise (RFC 6749 §3.1, §3.2)."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

REPEATABLE = frozenset({"resource"})  # RFC 8707 §2


@dataclass(frozen=True, slots=True)
class Parameters:
    """What was sent. A parameter without a value counts as left out; unknown ones are ignored."""

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
        """The first parameter that is there twice and must not be."""
        return next((name for name, sent in self.values.items() if len(sent) > 1 and name not in REPEATABLE), None)

    def get(self, name: str) -> str | None:
        """Return the value, None when there is none. Of one that is repeated, what it means is for nobody to guess."""
        sent = self.values.get(name, ())
        return sent[0] if len(sent) == 1 and sent[0] else None

    def all(self, name: str) -> tuple[str, ...]:
        """Return every value that says something."""
        return tuple(value for value in self.values.get(name, ()) if value)

    def __contains__(self, name: str) -> bool:
        return bool(self.all(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)
