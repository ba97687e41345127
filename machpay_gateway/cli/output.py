"""The output of commands: tables for people, JSON for scripts."""

import os
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from textwrap import wrap
from typing import Any
from unicodedata import combining, east_asian_width

import click
import orjson

from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.check_result import CheckResult, CheckStatus
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.keys.document import issued_key_document
from machpay_gateway.core.keys.key import KeyRecord, SecretRecord
from machpay_gateway.core.limits.tier_names import describe_tier
from machpay_gateway.core.text import format_moment

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for scripts.")

limit_option = click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Maximum number of rows."
)

KEY_COLUMNS = ("ID", "NAME", "OWNER", "ENVIRONMENT", "TIER", "STATUS", "LAST USED", "EXPIRES", "SCOPES")
ACCOUNT_COLUMNS = ("ID", "NAME", "TIER", "CREATED")
ROUTE_COLUMNS = ("METHOD", "PATH", "ACCESS", "COST")
# Parameters of the escape sequence SGR (ECMA-48 §8.3.117).
_BOLD = "1"
_STATUS_STYLES = {CheckStatus.OK: "32", CheckStatus.WARNING: "33", CheckStatus.WRONG: f"{_BOLD};31"}
_NOT_SHOWN_AGAIN = "Store the secret now: it is not shown again."
_GAP = "  "  # between columns
_NARROWEST = 20  # columns, into which text is wrapped at least


def print_json(document: object) -> None:
    """Print *document*, as UTF-8 whatever the terminal's encoding is."""
    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))


def print_list(data: Sequence[object], *, has_more: bool = False) -> None:
    """Print *data* as a JSON list in the format of the key API."""
    print_json({"object": "list", "data": data, "has_more": has_more})


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print *rows* under their *columns*, one line each, so that ids can be copied and pipes can process lines."""
    _print_grid([[*map(_bold, columns)], *([*map(printable, row)] for row in rows)])


def print_fields(fields: Iterable[tuple[str, str]], *, err: bool = False) -> None:
    """Print (name, value) pairs, one per line; a terminal wraps the values."""
    _print_grid([[_bold(name), printable(value)] for name, value in fields], err=err, is_wrapped=True)


def print_findings(findings: Iterable[CheckResult]) -> None:
    """Print *findings*, each with its way out below it; a terminal wraps them."""
    rows = [[*map(_bold, ("STATUS", "SUBJECT", "FOUND"))]]
    for finding in findings:
        lines = [
            printable(text) for text in (finding.message, finding.way_out and f"way out: {finding.way_out}") if text
        ]
        status = _styled(finding.status, _STATUS_STYLES[finding.status])
        rows.append([status, finding.subject, "\n".join(lines)])
    _print_grid(rows, is_wrapped=True)


def print_issued(record: KeyRecord, secret: str, now: float, tiers: Collection[str], *, as_json: bool) -> None:
    """Print a key with its new *secret*. As text, only the secret goes to stdout, so that it can be piped."""
    if as_json:
        print_json(issued_key_document(record, secret, now, tiers))
    else:
        print_fields(key_fields(record, now, tiers), err=True)
        click.echo(secret)
    warn_of_secret()


def warn_of_secret() -> None:
    """Warn on stderr that the secret is not shown again."""
    click.echo(_NOT_SHOWN_AGAIN, err=True)


def printable(text: str) -> str:
    """Return *text* with control characters escaped."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def key_row(record: KeyRecord, now: float, tiers: Collection[str]) -> tuple[str, ...]:
    """Return the key as a row under `KEY_COLUMNS`; *tiers* are the configured ones."""
    return (
        record.id,
        record.name,
        record.owner or "-",
        record.environment,
        _tier(record, tiers),
        str(record.status(now)),
        _moment(record.last_used_at),
        _moment(record.expires_at),
        str(record.scopes) or "-",
    )


def key_fields(record: KeyRecord, now: float, tiers: Collection[str]) -> list[tuple[str, str]]:
    """Return all visible fields of the key; *tiers* are the configured ones."""
    fields = [
        ("key", record.id),
        ("name", record.name),
        ("owner", record.owner or "none"),
        ("account", record.account_id),
        ("environment", record.environment),
        ("tier", _tier(record, tiers)),
        ("scopes", str(record.scopes) or "none: only routes that require no scope"),
        ("addresses", ", ".join(record.allowed_ips) or "any"),
        ("status", str(record.status(now))),
        ("secret", record.masked),
        ("created", format_moment(record.created_at)),
        ("last used", _moment(record.last_used_at)),
        ("rotated", _rotation(record, now)),
        ("expires", _moment(record.expires_at)),
    ]
    fields += [
        ("previous secret", f"{old.masked}, {secret_end(old, now)}, last used {_moment(old.last_used_at)}")
        for old in record.secrets[1:]
    ]
    fields += [(f"metadata {name}", value) for name, value in sorted(record.metadata.items())]
    return fields


def secret_end(secret: SecretRecord, now: float) -> str:
    """Return in words until when a replaced secret works."""
    if secret.expires_at is None:
        return "works on"
    return f"{'ended' if secret.expires_at <= now else 'works until'} {format_moment(secret.expires_at)}"


def account_json(account: Account) -> dict[str, Any]:
    """Return the account as JSON."""
    return {
        "id": account.id,
        "object": "account",
        "name": account.name,
        "tier": account.tier,
        "created_at": format_moment(account.created_at),
    }


def account_row(account: Account, tiers: Collection[str]) -> tuple[str, ...]:
    """Return the account as a row under `ACCOUNT_COLUMNS`; *tiers* are the configured ones."""
    return account.id, account.name, describe_tier(account.tier, tiers), format_moment(account.created_at)


def finding_json(finding: CheckResult) -> dict[str, Any]:
    """Return the finding as JSON."""
    return {
        "object": "finding",
        "subject": finding.subject,
        "status": finding.status,
        "found": finding.message,
        "way_out": finding.way_out,
    }


def route_json(route: Route) -> dict[str, Any]:
    """Return the rule as JSON; *scopes* is the expression."""
    return {
        "match": route.match,
        "scopes": str(route.requires),
        "cost": route.cost,
        "public": route.public,
        "environments": sorted(route.environments),
        "service": route.service,
    }


def route_row(route: Route) -> tuple[str, ...]:
    """Return the rule as a row under `ROUTE_COLUMNS`."""
    method, _, path = route.match.partition(" ")
    return method, path, access_of(route), "-" if route.public else str(route.cost)


def access_of(route: Route) -> str:
    """Return in words what *route* requires of a caller."""
    if route.public:
        return "public"
    return str(route.requires) or "any valid credential"


def _print_grid(rows: Sequence[Sequence[str]], *, err: bool = False, is_wrapped: bool = False) -> None:
    """Print *rows* in aligned columns. The last cell of a row may have several lines, and is wrapped on a terminal."""
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)][:-1]
    indent = " " * sum(width + len(_GAP) for width in widths)
    is_wrapped = is_wrapped and (sys.stderr if err else sys.stdout).isatty()
    room = max(_NARROWEST, shutil.get_terminal_size().columns - len(indent)) if is_wrapped else None
    for *cells, last in rows:
        lead = "".join(cell + " " * (width - _width(cell)) + _GAP for cell, width in zip(cells, widths, strict=True))
        for line in _lines(last, room):
            click.echo((lead + line).rstrip(), err=err)
            lead = indent


def _lines(text: str, room: int | None) -> Iterator[str]:
    """Yield the lines of *text*, wrapped into *room* columns."""
    for line in text.split("\n"):
        if room is None or _width(line) <= room:
            yield line
        else:
            yield from wrap(line, room, break_on_hyphens=False)


def _width(text: str) -> int:
    """Return the columns of a terminal that *text* takes, without its escape sequences."""
    if text.isascii() and text.isprintable():
        return len(text)
    return sum(0 if combining(c) else 1 + (east_asian_width(c) in "WF") for c in click.unstyle(text))


def _bold(text: str) -> str:
    return _styled(text, _BOLD)


def _styled(text: str, style: str) -> str:
    """Return *text* with escape sequences, which `click.echo` drops where there is no terminal."""
    return text if os.environ.get("NO_COLOR") else f"\x1b[{style}m{text}\x1b[0m"


def _tier(record: KeyRecord, tiers: Collection[str]) -> str:
    return describe_tier(record.tier, tiers, is_own=record.own_tier is not None)


def _rotation(record: KeyRecord, now: float) -> str:
    rotated = _moment(record.last_rotated_at)
    return f"{rotated}: due" if record.is_rotation_due(now) else rotated


def _moment(moment: float | None) -> str:
    return "never" if moment is None else format_moment(moment)
