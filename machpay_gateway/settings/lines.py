"""The line numbers of tables and keys in a TOML file, which tomllib does not report.

In an unusual layout a line number may be imprecise. Values are never wrong: they come from tomllib.
"""

import re
from collections import Counter
from collections.abc import Mapping

SettingPath = tuple[str | int, ...]

_KEY_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_DOTTED = rf"{_KEY_PART}(?:\s*\.\s*{_KEY_PART})*"
_ARRAY_TABLE = re.compile(rf"\s*\[\[\s*({_DOTTED})\s*\]\]")
_TABLE = re.compile(rf"\s*\[\s*({_DOTTED})\s*\]")
_KEY = re.compile(rf"\s*({_DOTTED})\s*=")


def lines_of(text: str) -> Mapping[SettingPath, int]:
    """Return the line number, from 1, of each table and key in the TOML *text*."""
    lines: dict[SettingPath, int] = {}
    counts: Counter[SettingPath] = Counter()
    table: SettingPath = ()
    for number, line in enumerate(text.split("\n"), start=1):
        if match := _ARRAY_TABLE.match(line):
            name = _within_last(_parts(match[1]), counts)
            table = (*name, counts[name])
            counts[name] += 1
            lines.setdefault(name, number)
            lines[table] = number
        elif match := _TABLE.match(line):
            table = _within_last(_parts(match[1]), counts)
            lines.setdefault(table, number)
        elif match := _KEY.match(line):
            lines.setdefault((*table, *_parts(match[1])), number)
    return lines


def line_of(lines: Mapping[SettingPath, int], path: SettingPath) -> int:
    """Return the line of *path*, or of the innermost table around it that has one, or 1."""
    for length in range(len(path), 0, -1):
        if (line := lines.get(path[:length])) is not None:
            return line
    return 1


def _within_last(name: SettingPath, counts: Mapping[SettingPath, int]) -> SettingPath:
    """Return the path of the table *name*: `[routes.limit]` belongs to the last of the `[[routes]]` so far."""
    path: SettingPath = ()
    for part in name[:-1]:
        path = (*path, part)
        if path in counts:
            path = (*path, counts[path] - 1)
    return (*path, name[-1])


def _parts(dotted: str) -> SettingPath:
    return tuple(part.strip("\"'") for part in re.findall(_KEY_PART, dotted))
