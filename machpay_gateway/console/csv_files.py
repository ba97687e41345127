"""CSV files (RFC 4180) in which spreadsheets find no formula to run (CSV injection)."""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO

MEDIA_TYPE = "text/csv; charset=utf-8; header=present"
# Spreadsheets split lines at different separators, some of them even within quotes. So a cell may begin after any
# separator, quote or white space inside one of our cells, and each of our cells begins after a quote.
_CELL_START = ",;|\\s\"'\\x00-\\x1f\\x7f\\u200b-\\u200f\\u2060\\ufeff"
# Characters that start a formula. Some programs also accept the full-width ones; those are searched for separately,
# because one pattern for both is slower.
_FORMULAS = [re.compile(f"{sign}(?<=[{_CELL_START}]{sign})") for sign in ("[=+\\-@]", "[＝＋－＠]")]  # noqa: RUF001 - full-width on purpose
_SKIPPED = frozenset("\t\r\n")


def file_headers(name: str) -> Mapping[str, str]:
    """Return the headers of a download. *name* must not need quoting."""
    return {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }


def format_csv(lines: Iterable[Sequence[object]]) -> str:
    """Return *lines* of quoted cells, with a `'` before everything that a spreadsheet could run as a formula."""
    output = StringIO()
    csv.writer(output, quoting=csv.QUOTE_ALL).writerows(map(_escape_starts, lines))
    text = output.getvalue()
    for formula in _FORMULAS:
        text = formula.sub(r"'\g<0>", text)
    return text


def _escape_starts(line: Sequence[object]) -> Sequence[object]:
    """Escape white space that spreadsheets skip before a formula."""
    return [f"'{cell}" if isinstance(cell, str) and cell[:1] in _SKIPPED else cell for cell in line]
