"""`machpay-gateway keys usage`: what a key was used for, from the store that every worker counts into."""

import time

import click

from machpay_gateway.cli.output import json_option, print_json, print_table
from machpay_gateway.cli.session import CliSession, known_key, pass_session
from machpay_gateway.cli.values import Duration
from machpay_gateway.core.usage.counters import ALLOWED, BUCKETS, UsageReport
from machpay_gateway.core.usage.document import CountsDocument, usage_document
from machpay_gateway.gateway import Gateway
from machpay_gateway.telemetry.reports import usage_report

_COLUMNS = ("START", "REQUESTS", "ALLOWED", "REFUSED", "P50 MS", "P95 MS", "P99 MS", "REFUSED FOR")


@click.command(short_help="Show what a key was used for.")
@click.argument("key")
@click.option("--last", type=Duration(), default="24h", show_default=True, help="How far to look back.")
@click.option("--bucket", type=click.Choice(list(BUCKETS)), default="hour", show_default=True, help="How finely.")
@json_option
@pass_session
def usage(session: CliSession, *, key: str, last: int, bucket: str, as_json: bool) -> None:
    """Show what KEY was used for: requests, what became of them, and how long they took."""
    now = time.time()

    async def report(gateway: Gateway) -> UsageReport:
        record = known_key(await gateway.keys.get(None, key), key)
        return await usage_report(gateway.store, record.id, start=now - last, end=now, bucket=bucket)

    document = usage_document(session.run(report))
    if as_json:
        print_json(document)
        return
    if not document["data"]:
        click.echo(f"No request came with {key} since {document['from']}.", err=True)
        return
    buckets = [_cells(counts["start"], counts) for counts in document["data"]]
    print_table(_COLUMNS, [*buckets, _cells("total", document["total"])])


def _cells(label: str, counts: CountsDocument) -> tuple[str, ...]:
    latency = counts["latency_ms"]
    refused = ", ".join(f"{code} {count:,}" for code, count in counts["outcomes"].items() if code != ALLOWED)
    numbers = [f"{number:,}" for number in (counts["requests"], counts["allowed"], counts["refused"])]
    quantiles = [f"{value:,.1f}" for value in (latency["p50"], latency["p95"], latency["p99"]) if value is not None]
    return label, *numbers, *quantiles, refused or "-"
