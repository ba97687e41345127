"""Files that spreadsheets open: CSV (RFC 4180), in which nothing is a formula."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO

MEDIA_TYPE = "text/csv; charset=utf-8; header=present"
# What begins a formula, or is skipped before one; the wide ones too, which some read alike.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - meant


def file_headers(name: str) -> Mapping[str, str]:
    """Return the headers of an answer that browsers keep as a file of that *name*, which is of letters of ours."""
    return {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }


def as_csv(lines: Iterable[Sequence[object]]) -> str:
    """Return *lines* of cells; of texts each that would be run is one that is shown."""
    text = StringIO()
    csv.writer(text).writerows([_defused(cell) for cell in line] for line in lines)
    return text.getvalue()


def _defused(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
