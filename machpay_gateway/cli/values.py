"""Types of options that click does not have: durations, and names in comma lists."""

import re
from collections.abc import Iterable

import click

_DURATION = re.compile(r"([0-9]{1,9})([smhdw])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """A length of time, in seconds: `30s`, `15m`, `12h`, `90d`, `2w`, or `0`."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return *value* in seconds."""
        if isinstance(value, int):
            return value
        if value == "0":
            return 0
        match = _DURATION.fullmatch(str(value))
        if match is None:
            self.fail(f"{value!r} is not a duration: write it as 30s, 15m, 12h, 90d or 2w.", param, ctx)
        return int(match[1]) * _UNIT_SECONDS[match[2]]


def none_if_empty(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Return *value*, None when it is empty."""
    return value or None


def split_names(_ctx: click.Context | None, _param: click.Parameter | None, values: Iterable[str]) -> tuple[str, ...]:
    """Return the names in *values*, each of which may be a list with commas or blanks, once each."""
    return tuple(dict.fromkeys(name for value in values for name in re.split(r"[,\s]+", value) if name))
