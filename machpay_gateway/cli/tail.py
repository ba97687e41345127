"""`machpay-gateway tail`: the access log as people read it, while it is written."""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import click
import orjson

from machpay_gateway.cli.access_log_reader import Followed, lines_of
from machpay_gateway.cli.output import printable
from machpay_gateway.cli.session import CliSession, pass_session
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.usage.counters import ALLOWED

_STDIN = "-"
_NO_FILES = {"stdout", "off"}
_POLL_SECONDS = 0.25  # as often as the log is written
_OUTCOMES = [ALLOWED, *map(str, Reason)]
_STATUS = re.compile(r"[1-5](?:xx|[0-9]{2})")
_COLOURS = {"2": "green", "3": "cyan", "4": "yellow", "5": "red"}  # by the first digit of a status


class _Status(click.ParamType[str]):
    """A status, or a hundred of them."""

    name = "status"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return what a status of it begins with."""
        if not _STATUS.fullmatch(str(value)):
            self.fail(f"{value!r} is not a status: write it as 429 or 4xx.", param, ctx)
        return str(value).removesuffix("xx")


@dataclass(slots=True)
class _LineFilter:
    """Which lines are shown; and how many were none of an access log."""

    key: str | None
    outcomes: tuple[str, ...]
    statuses: tuple[str, ...]
    route: str | None
    passed_over: int = 0

    def read(self, line: bytes) -> dict[str, Any] | None:
        """Return *line* read, None when it is not to be shown."""
        if not line.strip():
            return None
        try:
            read = orjson.loads(line)
            orjson.dumps(read)  # what is nested too deeply for it, nobody else can write either
        except (orjson.JSONDecodeError, orjson.JSONEncodeError):
            read = None
        # The processes' own lines may be JSON too, and come by the same pipe.
        if not isinstance(read, dict) or not {"time", "status", "outcome", "path"} <= read.keys():
            self.passed_over += 1
            return None
        return read if self._is_wanted(read) else None

    def _is_wanted(self, line: dict[str, Any]) -> bool:
        return (
            (self.key is None or line.get("key") == self.key)
            and (self.route is None or line.get("route") == self.route)
            and (not self.outcomes or line["outcome"] in self.outcomes)
            and (not self.statuses or str(line["status"]).startswith(self.statuses))
        )


@click.command(short_help="Show the access log as it is written.")
@click.argument("file", required=False, metavar="[FILE|-]")
@click.option("--key", metavar="KEY", help="Only requests of this key, by its id.")
@click.option("--outcome", type=click.Choice(_OUTCOMES), multiple=True, metavar="OUTCOME", help="Only these.")
@click.option("--status", type=_Status(), multiple=True, metavar="429|4xx", help="Only these.")
@click.option("--route", metavar="'GET /v1/x'", help="Only requests by this route, as it is listed.")
@click.option("-n", "--lines", type=click.IntRange(0), default=10, show_default=True, help="How many to begin with.")
@click.option("--follow/--no-follow", default=True, show_default=True, help="Go on with those that come.")
@click.option("--json", "as_json", is_flag=True, help="Print the lines as JSON, for scripts.")
@pass_session
def tail(  # noqa: PLR0913 - one argument for each option
    session: CliSession,
    *,
    file: str | None,
    key: str | None,
    outcome: tuple[str, ...],
    status: tuple[str, ...],
    route: str | None,
    lines: int,
    follow: bool,
    as_json: bool,
) -> None:
    """Show the requests in FILE, an access log, and go on with those that come. Ctrl-C ends it.

    Without FILE it is the one that the settings name; - is standard input, all of which is shown, as in
    `docker logs -f gateway | machpay-gateway tail --status 5xx -`. Rotate it as you like.
    """
    wanted = _LineFilter(key, outcome, status, route)
    show = _show_as_json if as_json else _show
    name = file or _logged_to(session)
    try:
        if name == _STDIN:
            for line in lines_of(sys.stdin.buffer):
                if (read := wanted.read(line)) is not None:
                    show(read)
        else:
            for read in _of_file(Path(name), wanted, lines=lines, follow=follow):
                show(read)
    except OSError as exc:
        if isinstance(exc, BrokenPipeError):
            raise
        raise click.ClickException(f"{name} cannot be read ({exc.strerror}): name another file.") from exc
    finally:
        if wanted.passed_over:
            are = "line was" if wanted.passed_over == 1 else "lines were"
            click.echo(f"{wanted.passed_over:,} {are} passed over: not of an access log.", err=True)


def _logged_to(session: CliSession) -> str:
    """Return the file that the settings name. Raises a click exception with the way out when they name none."""
    target = session.settings().server.access_log
    if target in _NO_FILES:
        raise click.UsageError(
            f'The access log goes to no file (access_log = "{target}" under [server]): name a FILE, or pipe what '
            "`machpay-gateway serve` prints into `machpay-gateway tail -`."
        )
    return target


def _of_file(
    path: Path, wanted: _LineFilter, *, lines: int, follow: bool, wait: Callable[[float], None] = time.sleep
) -> Iterator[dict[str, Any]]:
    """Yield the last *lines* that are *wanted*, oldest first, and if it is to *follow* those that come."""
    with Followed(path) as file:
        if not file.is_there:
            if not follow:
                raise click.ClickException(f"There is no file {path}: name another one.")
            click.echo(f"{path} is not there yet.", err=True)
        found = (read for line in file.before() if (read := wanted.read(line)) is not None)
        yield from reversed(list(islice(found, lines)))
        coming = _followed(file, wait) if follow else (*file.arrived(), *file.unfinished())
        yield from (read for line in coming if (read := wanted.read(line)) is not None)


def _followed(file: Followed, wait: Callable[[float], None]) -> Iterator[bytes]:
    while True:
        yield from file.arrived()
        wait(_POLL_SECONDS)


def _show(line: dict[str, Any]) -> None:
    """Print *line*. What is in it, anybody may have sent: nothing of it reaches the terminal that this would act on."""
    status = _text(line["status"])
    told = (_text(line.get(name)) for name in ("method", "path", "outcome", "key"))
    text = f"{_text(line['time'])} {click.style(status, fg=_COLOURS.get(status[:1]))} {'  '.join(told)}  {_times(line)}"
    click.echo(text, color=False if os.environ.get("NO_COLOR") else None)


def _times(line: dict[str, Any]) -> str:
    names = {"decision_milliseconds": "decision", "upstream_milliseconds": "upstream"}
    parts = [f"{name} {line[of]:,.1f}" for of, name in names.items() if isinstance(line.get(of), int | float)]
    total = line.get("milliseconds")
    told = f"{total:,.1f} ms" if isinstance(total, int | float) else "-"
    return f"{told} ({', '.join(parts)})" if parts else told


def _text(value: object) -> str:
    return "-" if value is None else printable(str(value))


def _show_as_json(line: dict[str, Any]) -> None:
    click.echo(json.dumps(line, separators=(",", ":")))  # in ASCII, as a terminal acts on characters beyond it, too
