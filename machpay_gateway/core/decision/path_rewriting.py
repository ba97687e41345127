"""How a route changes the path on its way upstream: a prefix stripped or added, or another template.

It works on the bytes that are forwarded, segment by segment: an escape stays as it came. An encoded slash is part of
its segment there as it is in matching, so both count segments alike.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from machpay_gateway.core.errors import ConfigurationError

_LITERAL = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:@]+")  # RFC 3986 §3.3 pchar, unescaped
_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(:path)?\}")
_REST = ":path}"

Part = str | int  # text as it is, or the index of a segment


@dataclass(frozen=True, slots=True)
class PathRewriting:
    """A rewriting of the paths that match a template.

    *stripped* are the first segments, which are left out, and *added* comes before what is left. With a *template*,
    these are its segments instead of all that: each is text and segments of the path. *rest_at* is the index from which
    the path's segments follow, None if they do not.
    """

    literals: tuple[str | None, ...]  # of the route's template; None is a parameter
    has_rest: bool
    stripped: tuple[str, ...] = ()
    added: str = ""
    template: tuple[tuple[Part, ...], ...] | None = None
    rest_at: int | None = None

    @property
    def prefix(self) -> str:
        """What is stripped, as it was written."""
        return "".join(f"/{segment}" for segment in self.stripped)

    def apply(self, path: str, forwarded: bytes) -> bytes | None:
        """Return *forwarded*, the bytes of the decoded *path*, rewritten; None if the template does not match it."""
        decoded, raw = path.split("/")[1:], forwarded.split(b"/")[1:]
        if len(decoded) != len(raw) or not self._matches(decoded):
            return None
        if self.template is None:
            return self.added.encode() + b"/" + b"/".join(raw[len(self.stripped) :])
        segments = [
            b"".join(part.encode() if isinstance(part, str) else raw[part] for part in each) for each in self.template
        ]
        if self.rest_at is not None:
            segments += raw[self.rest_at :]
        elif not self.has_rest and len(raw) > len(self.literals):
            segments.append(b"")  # a trailing slash stays
        return b"/" + b"/".join(segments)

    def _matches(self, decoded: Sequence[str]) -> bool:
        beyond = decoded[len(self.literals) :]
        return (
            len(decoded) >= len(self.literals)
            and (self.has_rest or beyond in ([], [""]))
            and all(literal in {None, segment} for literal, segment in zip(self.literals, decoded, strict=False))
        )


def parse_rewriting(match: str, strip_prefix: object, add_prefix: object, rewrite: object) -> PathRewriting | None:
    """Return how paths that *match*, a method and a valid template, are rewritten; None if they are not.

    Raises ConfigurationError.
    """
    if strip_prefix is None and add_prefix is None and rewrite is None:
        return None
    template = _split(match.partition(" ")[2])
    has_rest = template[-1:] != () and template[-1].endswith(_REST)
    fixed = template[:-1] if has_rest else template
    literals = tuple(None if _PARAMETER.fullmatch(segment) else segment for segment in fixed)
    if rewrite is not None:
        if strip_prefix is not None or add_prefix is not None:
            raise ConfigurationError("rewrite replaces the whole path: drop strip_prefix and add_prefix")
        segments, rest_at = _parse_template(template, rewrite)
        return PathRewriting(literals, has_rest, template=segments, rest_at=rest_at)
    stripped = () if strip_prefix is None else _literal_segments("strip_prefix", strip_prefix)
    if stripped != literals[: len(stripped)]:
        raise ConfigurationError(f"strip_prefix {strip_prefix!r} is not how the route's path begins")
    added = "" if add_prefix is None else "".join(f"/{each}" for each in _literal_segments("add_prefix", add_prefix))
    return PathRewriting(literals, has_rest, stripped, added)


def _literal_segments(name: str, prefix: object) -> tuple[str, ...]:
    segments = _split(prefix) if isinstance(prefix, str) and prefix.startswith("/") else ()
    if not segments or any(each in {".", ".."} or not _LITERAL.fullmatch(each) for each in segments):
        raise ConfigurationError(f'{name} {prefix!r} is not the beginning of a path, such as "/billing"')
    return segments


def _parse_template(template: Sequence[str], rewrite: object) -> tuple[tuple[tuple[Part, ...], ...], int | None]:
    """Return the segments of *rewrite*, with the parameters of *template*, and where the rest of the path begins."""
    if not isinstance(rewrite, str) or not rewrite.startswith("/"):
        raise ConfigurationError(f'rewrite {rewrite!r} is not a path, such as "/internal/{{id}}"')
    parameters = _parameters(template)
    *segments, last = _split(rewrite) or ("",)
    rest_at = None
    if (only := _PARAMETER.fullmatch(last)) and template[-1:] == (f"{{{only[1]}{_REST}",):
        rest_at = len(template) - 1
    elif last:
        segments.append(last)
    return tuple(_parse_segment(rewrite, segment, parameters) for segment in segments), rest_at


def _parameters(template: Sequence[str]) -> Mapping[str, int | None]:
    """Return the index of each parameter of one segment, by its name; None for a name of several."""
    parameters: dict[str, int | None] = {}
    for index, segment in enumerate(template):
        if (match := _PARAMETER.fullmatch(segment)) and not match[2]:
            parameters[match[1]] = None if match[1] in parameters else index
    return parameters


def _parse_segment(rewrite: str, segment: str, parameters: Mapping[str, int | None]) -> tuple[Part, ...]:
    parts: list[Part] = []
    at = 0
    for match in _PARAMETER.finditer(segment):
        name = match[1]
        if name not in parameters or match[2]:
            names = ", ".join(f"{{{each}}}" for each in parameters) or "none of one segment"
            raise ConfigurationError(
                f"rewrite {rewrite!r}: {match[0]} is not a parameter of the route's path here; it has {names}, "
                "and a {rest:path} can only be the last segment"
            )
        if (index := parameters[name]) is None:
            raise ConfigurationError(f"rewrite {rewrite!r}: the route's path has {match[0]} twice: rename one of them")
        parts += [segment[at : match.start()], index]
        at = match.end()
    parts.append(segment[at:])
    texts = [part for part in parts if isinstance(part, str) and part]
    # `.{id}` could become a dot segment.
    if any(not _LITERAL.fullmatch(text) for text in texts) or not segment or set(segment.partition("{")[0]) == {"."}:
        raise ConfigurationError(f"rewrite {rewrite!r}: {segment!r} is not a path segment; write it plain")
    return tuple(part for part in parts if part != "")


def _split(path: str) -> tuple[str, ...]:
    path = path[1:].removesuffix("/")
    return tuple(path.split("/")) if path else ()
