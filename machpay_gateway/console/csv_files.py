"""Files that spreadsheets open: CSV (RFC 4180), in which nothing is a formula."""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO

MEDIA_TYPE = "text/csv; charset=utf-8; header=present"
# Spreadsheets split lines at different separators, some whatever the quotes: so a cell may begin behind any separator,
# quote or blank within one of ours. In what is written, each of ours begins behind a quote.
_BEFORE = ",;|\\s\"'\\x00-\\x1f\\x7f\\u200b-\\u200f\\u2060\\ufeff"
# What begins a formula; the wide ones too, which some read alike, and by themselves, as they take longer to look for.
_FORMULAS = [re.compile(f"{sign}(?<=[{_BEFORE}]{sign})") for sign in ("[=+\\-@]", "[＝＋－＠]")]  # noqa: RUF001 - meant
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
    written = StringIO()
    csv.writer(written, quoting=csv.QUOTE_ALL).writerows([_begun(cell) for cell in line] for line in lines)
    text = written.getvalue()
    for formula in _FORMULAS:
        text = formula.sub(r"'\g<0>", text)
    return text


def _begun(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_SKIPPED) else cell
