"""Where in a TOML file a value stands. tomllib does not say, so the lines that name tables and keys are read again.

A guess that is wrong in an unusual layout costs a less precise line, never a wrong value: the value comes from tomllib.
"""

import re
from collections import Counter
from collections.abc import Mapping

Place = tuple[str | int, ...]

_KEY_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_DOTTED = rf"{_KEY_PART}(?:\s*\.\s*{_KEY_PART})*"
_ARRAY_TABLE = re.compile(rf"\s*\[\[\s*({_DOTTED})\s*\]\]")
_TABLE = re.compile(rf"\s*\[\s*({_DOTTED})\s*\]")
_KEY = re.compile(rf"\s*({_DOTTED})\s*=")


def lines_of(text: str) -> Mapping[Place, int]:
    """Return the line number, from 1, of each table and key in the TOML *text*."""
    lines: dict[Place, int] = {}
    counts: Counter[Place] = Counter()
    table: Place = ()
    for number, line in enumerate(text.split("\n"), start=1):
        if match := _ARRAY_TABLE.match(line):
            name = _parts(match[1])
            table = (*name, counts[name])
            counts[name] += 1
            lines.setdefault(name, number)
            lines[table] = number
        elif match := _TABLE.match(line):
            table = _parts(match[1])
            lines.setdefault(table, number)
        elif match := _KEY.match(line):
            lines.setdefault((*table, *_parts(match[1])), number)
    return lines


def line_of(lines: Mapping[Place, int], place: Place) -> int:
    """Return the line of *place*, or of the closest thing around it that has one; 1 when nothing has."""
    for length in range(len(place), 0, -1):
        if (line := lines.get(place[:length])) is not None:
            return line
    return 1


def _parts(dotted: str) -> Place:
    return tuple(part.strip("\"'") for part in re.findall(_KEY_PART, dotted))
