"""`machpay-gateway keys usage`: the stored usage of a key, from all workers, and what is left of its limits."""

import time

import click

from machpay_gateway.cli.key_limits import KeyLevels, read_levels
from machpay_gateway.cli.output import json_option, print_json, print_table
from machpay_gateway.cli.session import CliSession, pass_session, require_key
from machpay_gateway.cli.values import Duration
from machpay_gateway.core.usage.counters import ALLOWED, BUCKETS, UsageReport
from machpay_gateway.core.usage.document import CountsDocument, usage_document
from machpay_gateway.gateway import Gateway
from machpay_gateway.telemetry.reports import usage_report

_LIMIT_COLUMNS = ("LIMIT", "UNITS", "LEFT", "UNTIL MORE")
_COLUMNS = ("START", "REQUESTS", "ALLOWED", "REFUSED", "P50 MS", "P95 MS", "P99 MS", "REFUSED FOR")


@click.command(short_help="Show the usage of a key.")
@click.argument("key")
@click.option("--last", type=Duration(), default="24h", show_default=True, help="How far to look back.")
@click.option(
    "--bucket", type=click.Choice(list(BUCKETS)), default="hour", show_default=True, help="Length of each row."
)
@json_option
@pass_session
def usage(session: CliSession, *, key: str, last: int, bucket: str, as_json: bool) -> None:
    """Show the usage of KEY: requests, their outcomes and their latency, and what is left of each of its limits."""
    now = time.time()

    async def report(gateway: Gateway) -> tuple[UsageReport, KeyLevels]:
        record = require_key(await gateway.keys.get(None, key), key)
        usage = await usage_report(gateway.store, record.id, start=now - last, end=now, bucket=bucket)
        return usage, await read_levels(gateway, record)

    usage, levels = session.run(report)
    document = usage_document(usage)
    if as_json:
        print_json({**document, "policies": [limit.document() for limit in levels.limits]})
        return
    if document["data"]:
        buckets = [_cells(counts["start"], counts) for counts in document["data"]]
        print_table(_COLUMNS, [*buckets, _cells("total", document["total"])])
    else:
        click.echo(f"No request used {key} since {document['from']}.", err=True)
    _print_levels(levels, is_first=not document["data"])


def _print_levels(levels: KeyLevels, *, is_first: bool) -> None:
    """Print what is left of the limits if some of it is known, and on stderr why the rest is not."""
    if levels.is_known:
        if not is_first:
            click.echo()
        print_table(_LIMIT_COLUMNS, [limit.row() for limit in levels.limits])
    if levels.mistake is not None:
        click.echo(
            f"What is left of {'some' if levels.is_known else 'its'} limits is unknown: {levels.mistake}.", err=True
        )


def _cells(label: str, counts: CountsDocument) -> tuple[str, ...]:
    latency = counts["latency_ms"]
    # Requests that a limit would refuse are the only reason to set `enforce = false`: they are shown, too.
    refused = ", ".join(f"{code} {count:,}" for code, count in counts["outcomes"].items() if code != ALLOWED)
    numbers = [f"{number:,}" for number in (counts["requests"], counts["allowed"], counts["refused"])]
    quantiles = [f"{value:,.1f}" for value in (latency["p50"], latency["p95"], latency["p99"]) if value is not None]
    return label, *numbers, *quantiles, refused or "-"
