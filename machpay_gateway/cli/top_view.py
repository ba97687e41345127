"""The view of `machpay-gateway top`: its JSON document as tables for 80 columns, with more in wider terminals.

Rich, of the extra `cli`, is imported where a view is made: it takes a tenth of a second.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import StringIO
from itertools import compress
from typing import TYPE_CHECKING, Any

import click

from machpay_gateway.cli.output import printable
from machpay_gateway.core.usage.counters import ADMITTED_OUTCOMES

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, Group, RenderableType
    from rich.table import Table
    from rich.text import Text

_MAX_ROUTES = 8
_UNLIMITED = 100_000  # columns, where there is no terminal
_WIDE = 110  # columns, from which on all that is known of a key fits into a line
_NUMBERS = frozenset({"/S", "SHARE", "P50 MS", "P95 MS", "P99 MS", "REQUESTS", "OF LIMIT"})
_TRUNCATED = frozenset({"ROUTE", "NAME", "REFUSED"})  # on a narrow terminal


def top_view(document: Mapping[str, Any]) -> "Group":
    """Return *document* rendered as tables."""
    from rich.console import Group
    from rich.text import Text

    if document["mistake"] is not None:
        return Group(Text(f"{document['mistake']}.", "bold red"))
    head = (
        f"{document['requests_per_second']:,.1f} requests/s, {document['refused_per_second']:,.1f} refused  "
        f"{document['in_flight']:,} in flight  {document['connections']:,} connections  {document['workers']:,} workers"
    )
    resources = (
        f"{document['processors']:.2f} processors  {document['memory_bytes'] / 1e6:,.0f} MB of memory  "
        f"event loop {_number(document['event_loop_lag_ms'])} ms late"
    )
    parts: list[Any] = [
        Text(f"{document['at']}, over {document['seconds']:.1f} s"),
        Text(head, "bold"),
        Text(resources),
    ]
    if document["workers"] < document["workers_wanted"]:
        parts.append(Text(f"workers: {document['workers_wanted']} should run", "bold red"))
    if document["degraded_workers"]:
        parts.append(Text(f"degraded: {document['degraded_workers']} workers decide without Redis", "bold red"))
    parts += [
        Text(printable(f"upstream {out['upstream']}: {out['server']} is out"), "bold red")
        for out in document["upstream_servers_out"]
    ]
    routes = [{**document, "name": "all"}, *document["routes"][:_MAX_ROUTES]]
    whole = document["requests_per_second"] or 1.0
    outcomes = [(name, _number(rate), f"{rate / whole:.1%}") for name, rate in document["outcomes_per_second"].items()]
    parts += ["", _table(("OUTCOME", "/S", "SHARE"), outcomes)]
    parts += ["", _table(("ROUTE", "/S", "P50 MS", "P95 MS", "P99 MS"), map(_cells, routes))]
    if document["steps"]:
        parts += ["", _table(("STEP", "/S", "P50 MS", "P95 MS", "P99 MS"), map(_cells, document["steps"]))]
    parts += ["", _keys_view(document["keys"])]
    return Group(*parts)


def print_view(document: Mapping[str, Any]) -> None:
    """Print the view of *document*: in the width of the terminal, if there is one."""
    from rich.console import Console

    on_terminal = sys.stdout.isatty()
    console = Console(
        file=StringIO(),
        force_terminal=on_terminal,
        # NO_COLOR turns off every escape sequence, and rich would still write bold.
        color_system="auto" if on_terminal and not os.environ.get("NO_COLOR") else None,
        width=None if on_terminal else _UNLIMITED,
        highlight=False,
    )
    with console.capture() as captured:
        console.print(top_view(document))
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def _keys_view(keys: Mapping[str, Any]) -> "RenderableType":
    from rich.text import Text

    if keys["mistake"] is not None:
        return Text(f"No keys are shown: {keys['mistake']}.", "yellow")
    if not keys["data"]:
        return Text(f"No key was used since {keys['since']}.")
    return _KeyTable(keys["since"], keys["data"])


class _KeyTable:
    """The busiest keys. Where there is no room for all, the tightest limit of each replaces its tier and its share."""

    def __init__(self, since: str, keys: Sequence[Mapping[str, Any]]) -> None:
        self._since = since
        self._keys = keys

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[Table]":
        """Yield the table for the width of *options*."""
        is_wide = options.max_width >= _WIDE
        columns = [f"KEY, SINCE {self._since[11:16]}", "NAME", "TIER", "REQUESTS", "OF LIMIT", "LEAST LEFT", "REFUSED"]
        dropped = {"LEAST LEFT"}
        if any(key.get("tightest") is not None for key in self._keys):
            dropped = set() if is_wide else {"TIER", "OF LIMIT"}
        shown = [column not in dropped for column in columns]
        rows = (compress(_key_cells(key, is_wide=is_wide), shown) for key in self._keys)
        yield _table(list(compress(columns, shown)), map(tuple, rows))


def _key_cells(key: Mapping[str, Any], *, is_wide: bool) -> tuple[str, ...]:
    refused = (
        f"{outcome} {count / key['requests']:.0%}"
        for outcome, count in key["outcomes"].items()
        if outcome not in ADMITTED_OUTCOMES
    )
    of_limit = "-" if key["of_limit"] is None else f"{key['of_limit']:.0%}"
    return (
        key["id"],
        key["name"] or "-",
        key["tier"] or "-",
        f"{key['requests']:,}",
        of_limit,
        _least_left(key.get("tightest"), is_wide=is_wide),
        ", ".join(refused) or "-",
    )


def _least_left(tightest: Mapping[str, Any] | None, *, is_wide: bool) -> str:
    """Return what is left of the *tightest* limit: `account-month 3%`, `account-month 29,800 (3%)`."""
    if tightest is None:
        return "-"
    name, left = tightest["policy"], tightest["remaining"]
    share = f"{left / tightest['limit']:.0%}"
    return f"{name} {left:,} ({share})" if is_wide else f"{name} {share}"


def _cells(flow: Mapping[str, Any]) -> tuple[str, ...]:
    return flow["name"], _number(flow["requests_per_second"]), *map(_number, flow["latency_ms"].values())


def _number(number: float | None) -> str:
    return "-" if number is None else f"{number:,.1f}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> "Table":
    """Return *rows* under their *columns*; long cells are truncated instead of wrapped."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    cells = [tuple(map(printable, row)) for row in rows]
    for number, column in enumerate(columns):
        widest = max(map(len, (column, *(row[number] for row in cells))))
        is_truncated = column in _TRUNCATED
        table.add_column(
            column,
            no_wrap=not is_truncated,  # lets the column shrink; its cells are still truncated, not wrapped
            justify="right" if column in _NUMBERS else "left",
            min_width=None if is_truncated else widest,
        )
    for row in cells:
        table.add_row(*map(_cell, row))
    return table


def _cell(value: str) -> "Text":
    from rich.text import Text

    return Text(value, no_wrap=True, overflow="ellipsis")
