"""`machpay-gateway tail`: follow the access log in a readable form."""

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

from machpay_gateway.cli.access_log_reader import FollowedFile, lines_of
from machpay_gateway.cli.output import printable
from machpay_gateway.cli.session import CliSession, pass_session
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.usage.counters import ALLOWED, PREFLIGHT_OUTCOME, SHADOW_LIMITED

_STDIN = "-"
_NO_FILES = {"stdout", "off"}
_POLL_SECONDS = 0.25  # as often as the log is written
_OUTCOMES = [ALLOWED, SHADOW_LIMITED, PREFLIGHT_OUTCOME, *map(str, Reason)]
_STATUS = re.compile(r"[1-5](?:xx|[0-9]{2})")
_COLORS = {"2": "green", "3": "cyan", "4": "yellow", "5": "red"}  # by the first digit of a status


class _Status(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """An HTTP status such as 429, or a class of them such as 4xx."""

    name = "status"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the prefix of the statuses."""
        if not _STATUS.fullmatch(str(value)):
            self.fail(f"{value!r} is not a status: write it as 429 or 4xx.", param, ctx)
        return str(value).removesuffix("xx")


@dataclass(slots=True)
class _LineFilter:
    """Selects lines, and counts those that are not of an access log."""

    key: str | None
    outcomes: tuple[str, ...]
    statuses: tuple[str, ...]
    route: str | None
    skipped: int = 0

    def parse(self, line: bytes) -> dict[str, Any] | None:
        """Return *line* parsed, or None when it is not selected."""
        if not line.strip():
            return None
        try:
            entry = orjson.loads(line)
            orjson.dumps(entry)  # refuses what is nested too deeply to be printed
        except (orjson.JSONDecodeError, orjson.JSONEncodeError):
            entry = None
        # The process's own log may be JSON too, on the same pipe.
        if not isinstance(entry, dict) or not {"time", "status", "outcome", "path"} <= entry.keys():
            self.skipped += 1
            return None
        return entry if self._is_selected(entry) else None

    def _is_selected(self, line: dict[str, Any]) -> bool:
        return (
            (self.key is None or line.get("key") == self.key)
            and (self.route is None or line.get("route") == self.route)
            and (not self.outcomes or line["outcome"] in self.outcomes)
            and (not self.statuses or str(line["status"]).startswith(self.statuses))
        )


@click.command(short_help="Follow the access log.")
@click.argument("file", required=False, metavar="[FILE|-]")
@click.option("--key", metavar="KEY", help="Only requests with this key, by its id.")
@click.option(
    "--outcome", type=click.Choice(_OUTCOMES), multiple=True, metavar="OUTCOME", help="Only this outcome. Repeatable."
)
@click.option("--status", type=_Status(), multiple=True, metavar="429|4xx", help="Only this status. Repeatable.")
@click.option("--route", metavar="'GET /v1/x'", help="Only requests that match this route.")
@click.option(
    "-n", "--lines", type=click.IntRange(0), default=10, show_default=True, help="Number of lines to start with."
)
@click.option("--follow/--no-follow", default=True, show_default=True, help="Wait for new lines.")
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
    """Show the last requests in FILE, an access log, and follow it, also across rotations. Stop with Ctrl-C.

    FILE defaults to the access log of the settings; - is standard input, which is read from its start, as in
    `docker logs -f gateway | machpay-gateway tail --status 5xx -`.
    """
    selection = _LineFilter(key, outcome, status, route)
    show = _show_as_json if as_json else _show
    name = file or _access_log_file(session)
    try:
        if name == _STDIN:
            for line in lines_of(sys.stdin.buffer):
                if (entry := selection.parse(line)) is not None:
                    show(entry)
        else:
            for entry in _of_file(Path(name), selection, lines=lines, follow=follow):
                show(entry)
    except OSError as exc:
        if isinstance(exc, BrokenPipeError):
            raise
        raise click.ClickException(f"{name} cannot be read ({exc.strerror}): name another file.") from exc
    finally:
        if selection.skipped:
            noun = "line" if selection.skipped == 1 else "lines"
            click.echo(f"{selection.skipped:,} {noun} skipped: not of an access log.", err=True)


def _access_log_file(session: CliSession) -> str:
    """Return the access log of the settings. Raises a click exception with a hint when it is not a file."""
    target = session.load_settings().server.access_log
    if target in _NO_FILES:
        raise click.UsageError(
            f'The access log goes to no file (access_log = "{target}" under [server]): name a FILE, or pipe what '
            "`machpay-gateway serve` prints into `machpay-gateway tail -`."
        )
    return target


def _of_file(
    path: Path, selection: _LineFilter, *, lines: int, follow: bool, wait: Callable[[float], None] = time.sleep
) -> Iterator[dict[str, Any]]:
    """Yield the last *lines* of the *selection*, oldest first, and with *follow* also new ones."""
    with FollowedFile(path) as file:
        if not file.exists:
            if not follow:
                raise click.ClickException(f"There is no file {path}: name another one.")
            click.echo(f"{path} does not exist yet.", err=True)
        last = (entry for line in file.existing_lines() if (entry := selection.parse(line)) is not None)
        yield from reversed(list(islice(last, lines)))
        new_lines = _follow(file, wait) if follow else (*file.new_lines(), *file.partial_line())
        yield from (entry for line in new_lines if (entry := selection.parse(line)) is not None)


def _follow(file: FollowedFile, wait: Callable[[float], None]) -> Iterator[bytes]:
    while True:
        yield from file.new_lines()
        wait(_POLL_SECONDS)


def _show(line: dict[str, Any]) -> None:
    """Print *line* with control characters escaped: any caller may have sent them."""
    status = _text(line["status"])
    values = (_text(line.get("method")), _text(line.get("path")), _outcome(line), _text(line.get("key")))
    text = (
        f"{_text(line['time'])} {click.style(status, fg=_COLORS.get(status[:1]))} {'  '.join(values)}  {_times(line)}"
    )
    click.echo(text, color=False if os.environ.get("NO_COLOR") else None)


def _outcome(line: dict[str, Any]) -> str:
    """Return the outcome, with the policies that the request violated: `rate_limited (minute, account-month)`."""
    outcome, policies = _text(line["outcome"]), line.get("violated_policies")
    return f"{outcome} ({', '.join(map(_text, policies))})" if isinstance(policies, list) else outcome


def _times(line: dict[str, Any]) -> str:
    names = {"decision_milliseconds": "decision", "upstream_milliseconds": "upstream"}
    parts = [f"{name} {line[of]:,.1f}" for of, name in names.items() if isinstance(line.get(of), int | float)]
    total = line.get("milliseconds")
    total_text = f"{total:,.1f} ms" if isinstance(total, int | float) else "-"
    return f"{total_text} ({', '.join(parts)})" if parts else total_text


def _text(value: object) -> str:
    return "-" if value is None else printable(str(value))


def _show_as_json(line: dict[str, Any]) -> None:
    click.echo(
        json.dumps(line, separators=(",", ":"))
    )  # in ASCII: terminals interpret control characters beyond it, too
