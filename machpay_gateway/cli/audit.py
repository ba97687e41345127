"""`machpay-gateway audit`: list the audit log, and verify its integrity."""

import re

import click

from machpay_gateway.cli.output import json_option, print_json, print_list, print_table
from machpay_gateway.cli.session import CliSession, find_account, pass_session, print_database
from machpay_gateway.core.keys.audit import AuditHead, AuditRow, head_after, verify_chain
from machpay_gateway.core.keys.document import AuditEntryDocument, audit_document
from machpay_gateway.gateway import Gateway

_COLUMNS = ("NUMBER", "TIME", "WHO", "FROM", "ACTION", "OBJECT", "CHANGED")
_ROWS_AT_ONCE = 1000
_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")


class _AuditHeadType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """A head as `verify` prints it: the last row's number, a colon and its digest in hex."""

    name = "head"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> AuditHead:
        """Return *value* parsed, or fail with a hint."""
        if not (match := _HEAD.fullmatch(str(value))):
            self.fail(f"{value!r} is not a head: copy it from what `audit verify` printed, NUMBER:DIGEST", param, ctx)
        return AuditHead(int(match[1]), bytes.fromhex(match[2]))


@click.group()
def audit() -> None:
    """List the audit log, and verify its integrity."""


@audit.command("list")
@click.option("--account", metavar="ID|NAME", help="Only changes of this account.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="How many at most.")
@click.option(
    "--before", type=click.IntRange(1), metavar="NUMBER", help="Only rows older than this one; for the next page."
)
@json_option
@pass_session
def list_(session: CliSession, *, account: str | None, limit: int, before: int | None, as_json: bool) -> None:
    """List changes, newest first."""

    async def page(gateway: Gateway) -> list[AuditRow]:
        owner = None if account is None else (await find_account(gateway, account)).id
        return list(await gateway.store.audit_page(owner, before=before, limit=limit + 1))

    rows = session.run(page)
    try:
        entries = [audit_document(row) for row in rows[:limit]]
    except (TypeError, ValueError) as exc:  # a column with a value that we never write
        raise click.ClickException("A row cannot be read: `machpay-gateway audit verify` says which.") from exc
    has_more = len(rows) > limit
    if as_json:
        print_list(entries, has_more=has_more)
        return
    print_table(_COLUMNS, [_cells(entry) for entry in entries])
    if has_more:
        click.echo(f"There are more: add --before {entries[-1]['number']}", err=True)
    else:
        print_database(session)


@audit.command()
@click.option(
    "--expect",
    type=_AuditHeadType(),
    metavar="HEAD",
    help="A head from an earlier run, which must still be in the log.",
)
@json_option
@pass_session
def verify(session: CliSession, *, expect: AuditHead | None, as_json: bool) -> None:
    """Verify every row against the chain of digests: detects rows that were changed, removed or cut off.

    Keep the head that is printed in another place. An attacker who can write the database can write a whole new log,
    but none that contains the head that you pass with --expect.
    """
    head, mistake = session.run(lambda gateway: _verify(gateway, expect))
    head_text = f"{head.sequence}:{head.digest.hex()}"
    if as_json:
        print_json({"object": "audit_verification", "rows": head.sequence, "head": head_text, "mistake": mistake})
    elif mistake is None:
        click.echo(f"{head.sequence} rows, whole. Head: {head_text}")
    if mistake is not None:
        raise click.ClickException(f"The audit log is not whole: {mistake}. It holds up to row {head.sequence}.")


async def _verify(gateway: Gateway, expect: AuditHead | None) -> tuple[AuditHead, str | None]:
    """Return the last valid row, and what is wrong with the next one."""
    end, head = await gateway.store.audit_head(), AuditHead()
    missing = {end, expect or end} - {head}
    while rows := await gateway.store.audit_rows(head.sequence, limit=_ROWS_AT_ONCE):
        head, mistake = verify_chain(head, rows)
        if mistake is not None:
            return head, mistake
        missing -= {head_after(row) for row in rows}
    # Rows that were added after the head was read are no mistake.
    if end.sequence > head.sequence:
        return head, f"row {head.sequence + 1} is missing"
    if missing:
        lost = " and ".join(f"row {number} is another one" for number in sorted(head.sequence for head in missing))
        return head, f"the log was replaced: {lost}"
    return head, None


def _cells(entry: AuditEntryDocument) -> tuple[str, ...]:
    actor = entry["actor"]
    who, changed = f"{actor['kind']} {actor['id']}".strip(), ", ".join(entry["after"])
    where = actor["address"] or "-"
    return str(entry["number"]), entry["at"], who, where, entry["action"], entry["object_id"], changed or "-"
