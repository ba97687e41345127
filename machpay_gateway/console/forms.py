"""What a browser sends by a form of ours: fields by name, and of what people wrote what is wrong with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from starlette.requests import Request

from machpay_gateway.core.errors import InputError
from machpay_gateway.web.forms import Pairs, is_text, read_form


@dataclass(frozen=True, slots=True)
class Form:
    """The fields that were sent, in their order."""

    pairs: Pairs = field(default_factory=list, repr=False)

    def text(self, name: str) -> str:
        """Return what was written into the field *name*; of one that came twice, the last."""
        return next((value for each, value in reversed(self.pairs) if each == name), "")

    def all(self, name: str) -> list[str]:
        """Return all that was ticked of *name*."""
        return [value for each, value in self.pairs if each == name and value]


async def parse_form(request: Request) -> Form:
    """Return what was sent; what cannot be read is a form without fields, which proves nothing."""
    pairs = await read_form(request)
    return Form([] if isinstance(pairs, str) or not is_text(pairs) else pairs)


@dataclass(frozen=True, slots=True)
class FieldErrors:
    """What is wrong, by field; of the form as a whole by the empty name."""

    by_field: dict[str, str] = field(default_factory=dict)

    @classmethod
    def whole(cls, error: InputError) -> Self:
        """Return the mistake that *error* tells of the form as a whole."""
        return cls({"": str(error)})

    def __bool__(self) -> bool:
        return bool(self.by_field)

    def get(self, name: str) -> str:
        """Return what is wrong with the field *name*, nothing if it is right."""
        return self.by_field.get(name, "")

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Take an InputError within for a mistake in the field *name*."""
        try:
            yield
        except InputError as exc:
            self.by_field.setdefault(name, str(exc))
