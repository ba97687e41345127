"""How other servers may read a path: what they ignore in it, or undo once more.

A server behind the gateway may run `/v1/account` for `/v1/ACCOUNT` (Express, IIS), `/v1/account;x=1` (Tomcat, Jetty),
`/v1/account.` (Windows), `/v1/%2561ccount` (whatever unescapes twice) or `/v1/account.json` (Rails, Spring). Each
difference has been a bypass somewhere (CVE-2026-27587 in Caddy, mosn#1633, istio#27409). So a path is also matched by
what it is once all of that is taken off, and the strictest rule decides (`core.decision.policy`).

One folded form stands for all of these servers: folding is idempotent, and what any one of them ignores is ignored in
it too. So a path that one of them takes for a listed literal folds to the same as that literal.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from urllib.parse import unquote

# Of which every server takes off nothing, or nothing but case. Most paths are of these characters.
_LOWER = re.compile(r"[a-z0-9_~!&'()*+,=:@/-]*")
_BARE = re.compile(r"[A-Za-z0-9_~!&'()*+,=:@/-]*")
_ESCAPE = re.compile(r"%(?:[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4})")
_WIDE_ESCAPE = re.compile(r"%u([0-9A-Fa-f]{4})")  # of IIS
_MOST_ESCAPED = 3  # times that a server may unescape what was unescaped before it came
# Path parameters (RFC 3986 §3.3), and the streams of a Windows file (`::$DATA`).
_PARAMETERS = re.compile(r"(?:;|::\$).*", re.DOTALL)
_INVISIBLE = frozenset({"Mn", "Cf"})  # Unicode categories: marks that NFKD sets apart, and format characters
_LONG = 64

Segments = tuple[str, ...]


class LiteralPaths:
    """The literal segments that are listed, and how each is spelled."""

    __slots__ = ("_are_lower", "_spellings")

    def __init__(self, literals: Iterable[str]) -> None:
        spellings: dict[str, str] = {}
        for literal in literals:
            folded = fold(literal)
            spellings[folded] = literal if spellings.get(folded, literal) == literal else ""  # no spelling of several
        self._spellings = spellings
        self._are_lower = all(folded == spelling for folded, spelling in spellings.items())

    def are_spelled_in(self, path: str, segments: Sequence[str]) -> bool:
        """Tell whether no server finds a literal among the *segments* of *path* that is not there as it is spelled.

        False means that it has to be looked at more closely.
        """
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
    """Return *segment* without what some server ignores: case, accents, parameters, blanks and dots at its ends."""
    return _fold(segment) if len(segment) < _LONG else _fold.__wrapped__(segment)


def folded_paths(path: str) -> Iterator[Segments]:
    """Yield the segments of *path*, folded, as servers that undo its escapes once more would have them.

    Dots are resolved and empty segments left out. Where a `?`, `#` or `;` shows up, the path may also end there.
    """
    text = _unescaped(path) if "%" in path else path
    text = text.replace("\\", "/")
    yield _segments(text)
    for mark in "?#;":
        if mark in text:
            yield _segments(text.partition(mark)[0])


def without_extension(segments: Segments) -> Segments | None:
    """Return *segments* without the extension of the last one, None where it has none."""
    stem, dot, _ = segments[-1].rpartition(".") if segments else ("", "", "")
    return (*segments[:-1], stem) if dot and stem else None


@lru_cache(maxsize=4096)
def _fold(segment: str) -> str:
    text = _PARAMETERS.sub("", segment)
    if not text.isascii():
        # Java and JavaScript compare by upper case, which makes an `i` of a dotless one and an `s` of a long one.
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
