"""Spellings of a path: what some server or other takes for the path itself."""

import random
from collections.abc import Callable, Iterator
from typing import TypeAlias

from tests.paths.handlers import HANDLERS

Change: TypeAlias = Callable[[random.Random, str], str]

_LOOKALIKES = {"i": "%C4%B1", "s": "%C5%BF", "k": "%E2%84%AA", "a": "%EF%BD%81", "n": "%EF%BD%8E"}
_AFTER_SEGMENT = (
    ";x=1",
    ";",
    ";a=b;c",
    "%3b",
    "%3Bx",
    ".",
    "..",
    "%2e",
    "%20",
    "%20.",
    ". ".replace(" ", "%20"),
    "%c2%a0",
)
_AT_END = (
    ".json",
    ".html",
    "::$DATA",
    "/",
    "/.",
    "/..;/",
    "%3f",
    "%3fx=1",
    "%23",
    "%23x",
    "?x=1",
    "%00",
    "%2500",
    "~",
    "+",
)
_BETWEEN = ("//", "/./", "/x/../", "/;x/", "/%2e/", "/x%2f..%2f", "%2f", "%252f", "%5c", "\\", "/%20/", "/...%20/")


def _case(draw: random.Random, path: str) -> str:
    at = _letter(draw, path)
    return path if at is None else path[:at] + path[at].swapcase() + path[at + 1 :]


def _all_case(draw: random.Random, path: str) -> str:
    return path.upper() if draw.random() < 0.5 else path.title()


def _escape(draw: random.Random, path: str) -> str:
    at = _letter(draw, path)
    if at is None:
        return path
    code = ord(draw.choice([path[at], path[at].swapcase()]))
    form = draw.choice(
        [f"%{code:02x}", f"%{code:02X}", f"%25{code:02x}", f"%2525{code:02x}", f"%u00{code:02x}", f"%25u00{code:02x}"]
    )
    return path[:at] + form + path[at + 1 :]


def _lookalike(draw: random.Random, path: str) -> str:
    positions = [at for at, letter in enumerate(path) if letter in _LOOKALIKES and path[at - 1] != "%"]
    if not positions:
        return path
    at = draw.choice(positions)
    return path[:at] + _LOOKALIKES[path[at]] + path[at + 1 :]


def _after_segment(draw: random.Random, path: str) -> str:
    segments = path.split("/")
    at = draw.randrange(1, len(segments))
    segments[at] += draw.choice(_AFTER_SEGMENT)
    return "/".join(segments)


def _at_end(draw: random.Random, path: str) -> str:
    return path + draw.choice(_AT_END)


def _between(draw: random.Random, path: str) -> str:
    slashes = [at for at, letter in enumerate(path) if letter == "/"]
    at = draw.choice(slashes)
    return path[:at] + draw.choice(_BETWEEN) + path[at + 1 :]


def _through_another(draw: random.Random, path: str) -> str:
    return draw.choice(["/docs/..%2f", "/docs/%2e%2e/", "/docs/..;/", "/docs/x/../..", "/DOCS/"]) + path.lstrip("/")


CHANGES: tuple[Change, ...] = (
    _case, _all_case, _escape, _escape, _lookalike, _after_segment, _after_segment, _at_end, _between, _through_another
)  # fmt: skip


def spellings(seed: int, count: int) -> Iterator[str]:
    """Yield *count* spellings of the listed paths, each of up to four changes; the same for a *seed* each time."""
    draw = random.Random(seed)  # noqa: S311 - to be the same again
    for _ in range(count):
        path = draw.choice(HANDLERS).sample
        for change in draw.choices(CHANGES, k=draw.randint(0, 4)):
            path = change(draw, path)
        yield path if path.startswith("/") else f"/{path}"


def _letter(draw: random.Random, path: str) -> int | None:
    positions = [at for at, letter in enumerate(path) if letter.isalpha() and "%" not in path[max(0, at - 6) : at]]
    return draw.choice(positions) if positions else None
