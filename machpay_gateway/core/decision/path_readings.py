"""Interpretations of a path by different servers: the parts that they ignore, and the escapes that they decode twice.

A server behind the gateway may serve `/v1/account` for `/v1/ACCOUNT` (Express, IIS), `/v1/account;x=1` (Tomcat, Jetty),
`/v1/account.` (Windows), `/v1/%2561ccount` (servers that decode twice) or `/v1/account.json` (Rails, Spring). Each of
these differences has been an authorization bypass (CVE-2026-27587 in Caddy, mosn#1633, istio#27409). So a path is also
matched in a folded form without all of these parts, and the strictest matching route decides (`core.decision.policy`).

One folded form covers all of these servers: folding is idempotent, and it removes whatever any of them ignores. So a
path that one of them takes for a listed literal folds to the same segments as that literal.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from urllib.parse import unquote

# Characters that no server ignores or decodes; servers differ on their case at most. Most paths have no others.
_LOWER = re.compile(r"[a-z0-9_~!&'()*+,=:@/-]*")
_BARE = re.compile(r"[A-Za-z0-9_~!&'()*+,=:@/-]*")
_ESCAPE = re.compile(r"%(?:[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4})")
_WIDE_ESCAPE = re.compile(r"%u([0-9A-Fa-f]{4})")  # IIS decodes these
_MOST_ESCAPED = 3  # how often a server may decode a path that is decoded already
# Path parameters (RFC 3986 §3.3), and the streams of a Windows file (`::$DATA`).
_PARAMETERS = re.compile(r"(?:;|::\$).*", re.DOTALL)
_INVISIBLE = frozenset({"Mn", "Cf"})  # Unicode categories: marks that NFKD separates, and format characters
_LONG = 64

Segments = tuple[str, ...]


class LiteralPaths:
    """The literal segments of all routes, and the spelling of each."""

    __slots__ = ("_are_lower", "_spellings")

    def __init__(self, literals: Iterable[str]) -> None:
        spellings: dict[str, str] = {}
        for literal in literals:
            folded = fold(literal)
            spellings[folded] = literal if spellings.get(folded, literal) == literal else ""  # "": several
        self._spellings = spellings
        self._are_lower = all(folded == spelling for folded, spelling in spellings.items())

    def are_spelled_in(self, path: str, segments: Sequence[str]) -> bool:
        """Tell whether every server sees the same literals among the *segments* of *path*, spelled as listed.

        False means that `folded_paths` have to be matched, too.
        """
        if "//" in path:  # most servers merge slashes
            return False
        if self._are_lower and _LOWER.fullmatch(path):
            return True
        if not _BARE.fullmatch(path):
            return False
        spellings = self._spellings
        for segment in segments:
            folded = segment.lower()
            if folded in spellings and spellings[folded] != segment:
                return False
        return True


def fold(segment: str) -> str:
    """Return *segment* without what some servers ignore: case, accents, parameters, blanks and dots at its ends."""
    return _fold(segment) if len(segment) < _LONG else _fold.__wrapped__(segment)


def folded_paths(path: str) -> Iterator[Segments]:
    """Yield the folded segments of *path* in each interpretation by servers that decode its escapes again.

    Dot segments are resolved and empty segments dropped. The path may also end at the first `?`, `#` or `;` in it.
    """
    text = _unescaped(path) if "%" in path else path
    text = text.replace("\\", "/")
    yield _segments(text)
    for mark in "?#;":
        if mark in text:
            yield _segments(text.partition(mark)[0])


def without_extension(segments: Segments) -> Segments | None:
    """Return *segments* without the extension of the last one; None if it has none."""
    stem, dot, _ = segments[-1].rpartition(".") if segments else ("", "", "")
    return (*segments[:-1], stem) if dot and stem else None


@lru_cache(maxsize=4096)
def _fold(segment: str) -> str:
    text = _PARAMETERS.sub("", segment)
    if not text.isascii():
        # Java and JavaScript compare in upper case, where a dotless i equals `i` and a long s equals `s`.
        text = unicodedata.normalize("NFKD", text.upper())
        text = "".join(letter for letter in text if unicodedata.category(letter) not in _INVISIBLE)
    return text.strip().rstrip(". ").casefold()


def _unescaped(text: str) -> str:
    for _ in range(_MOST_ESCAPED):
        if not _ESCAPE.search(text):
            break
        text = unquote(_WIDE_ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), text))
    return text


def _segments(text: str) -> Segments:
    segments: list[str] = []
    for segment in text.split("/"):
        if _is_parent(segment):
            del segments[-1:]
        elif folded := fold(segment):
            segments.append(folded)
    return tuple(segments)


def _is_parent(segment: str) -> bool:
    return ".." in segment and _PARAMETERS.sub("", segment).strip() == ".."
