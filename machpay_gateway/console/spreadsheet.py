"""Files that spreadsheets open: CSV (RFC 4180), in which nothing is a formula."""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO

MEDIA_TYPE = "text/csv; charset=utf-8; header=present"
# What begins a formula, the wide ones too, which some read alike. Spreadsheets split lines at different separators,
# some whatever the quotes: so a cell may begin behind any separator, quote or blank within one of ours.
_SIGN = re.compile(r"[=+\-@＝＋－＠]")  # noqa: RUF001 - meant
_BEFORE = re.compile(r"[,;|\s\"'\x00-\x1f\x7f\u200b-\u200f\u2060\ufeff]")
_SKIPPED = ("\t", "\r", "\n")


def file_headers(name: str) -> Mapping[str, str]:
    """Return the headers of an answer that browsers keep as a file of that *name*, which is of letters of ours."""
    return {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }


def as_csv(lines: Iterable[Sequence[object]]) -> str:
    """Return *lines* of quoted cells; of texts each that would be run is one that is shown."""
    text = StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([_defused(cell) for cell in line] for line in lines)
    return text.getvalue()


def _defused(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    defused = _SIGN.sub(_shown, cell)
    return f"'{defused}" if defused.startswith(_SKIPPED) else defused


def _shown(sign: re.Match[str]) -> str:
    """Return the *sign* so that it begins no formula, if it would."""
    begins = not sign.start() or _BEFORE.match(sign.string, sign.start() - 1)
    return f"'{sign[0]}" if begins else sign[0]
