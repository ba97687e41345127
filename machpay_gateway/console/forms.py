"""Submitted forms: their fields by name, and the validation errors of each field."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from starlette.requests import Request

from machpay_gateway.core.errors import InputError
from machpay_gateway.web.forms import Pairs, is_utf8, read_form


@dataclass(frozen=True, slots=True)
class Form:
    """The submitted fields, in their order."""

    pairs: Pairs = field(default_factory=list, repr=False)

    def text(self, name: str) -> str:
        """Return the value of the field *name*, the last one of several; empty when it is missing."""
        return next((value for each, value in reversed(self.pairs) if each == name), "")

    def all(self, name: str) -> list[str]:
        """Return every value of *name* that is not empty, such as those of checkboxes."""
        return [value for each, value in self.pairs if each == name and value]


async def parse_form(request: Request) -> Form:
    """Return the submitted form. A malformed body is a form without fields, and so without a CSRF token."""
    pairs = await read_form(request)
    return Form([] if isinstance(pairs, str) or not is_utf8(pairs) else pairs)


@dataclass(frozen=True, slots=True)
class FieldErrors:
    """Error messages by field name. The empty name stands for the form as a whole."""

    by_field: dict[str, str] = field(default_factory=dict)

    @classmethod
    def for_form(cls, error: InputError) -> Self:
        """Return *error* as the error of the form as a whole."""
        return cls({"": str(error)})

    def __bool__(self) -> bool:
        return bool(self.by_field)

    def get(self, name: str) -> str:
        """Return the error of the field *name*, empty if there is none."""
        return self.by_field.get(name, "")

    @contextmanager
    def collect(self, name: str) -> Iterator[None]:
        """Catch an InputError within the block, and keep its message for the field *name*."""
        try:
            yield
        except InputError as exc:
            self.by_field.setdefault(name, str(exc))
