"""`machpay-gateway grants`: what users allow apps to do."""

from dataclasses import replace

import click

from machpay_gateway.cli.output import json_option, limit_option, print_json, print_list, print_table
from machpay_gateway.cli.session import (
    CliSession,
    app_not_found,
    find_account,
    operator_actor,
    pass_session,
    print_database,
)
from machpay_gateway.core.errors import InputError
from machpay_gateway.core.oauth.documents import grant_document
from machpay_gateway.core.oauth.grant import Grant
from machpay_gateway.core.text import format_moment, quote_value
from machpay_gateway.gateway import Gateway

_COLUMNS = ("ID", "APP", "USER", "STATUS", "SCOPES", "CREATED")


@click.group()
def grants() -> None:
    """List and revoke what users allow apps to do."""


@grants.command("list")
@click.option("--account", metavar="ID|NAME", help="Only grants of this account's users, and of its apps themselves.")
@click.option("--client", metavar="CLIENT", help="Only grants to this app.")
@limit_option
@click.option("--after", metavar="GRANT", help="Start after this grant; for the next page.")
@json_option
@pass_session
def list_(
    session: CliSession, *, account: str | None, client: str | None, limit: int, after: str | None, as_json: bool
) -> None:
    """List grants, newest first."""

    async def page(gateway: Gateway) -> list[Grant]:
        owner = None if account is None else (await find_account(gateway, account)).id
        if client is not None and await gateway.oauth_clients.get_even_deleted(None, client) is None:
            raise app_not_found(client)
        if after is not None and await gateway.revocation.get(owner, after) is None:
            raise _unknown(after)
        return list(await gateway.revocation.list(owner, client_id=client, after=after, limit=limit + 1))

    rows = session.run(page)
    page_rows, has_more = rows[:limit], len(rows) > limit
    if as_json:
        print_list([grant_document(grant) for grant in page_rows], has_more=has_more)
        return
    if not page_rows:
        click.echo(f"No grants match in {session.database.name}: one is created when a user allows an app.", err=True)
        return
    print_table(_COLUMNS, [_row(grant) for grant in page_rows])
    if has_more:
        click.echo(f"There are more: add --after {page_rows[-1].id}", err=True)
    else:
        print_database(session)


@grants.command()
@click.argument("grant")
@json_option
@pass_session
def revoke(session: CliSession, *, grant: str, as_json: bool) -> None:
    """Revoke GRANT, by its id: the app is refused from its next request on, and must ask the user again."""

    async def end(gateway: Gateway) -> Grant:
        record = await gateway.revocation.get(None, grant)
        if record is None:
            raise _unknown(grant)
        await gateway.revocation.revoke_grant(None, record, actor=operator_actor())
        return replace(record, is_alive=False)

    ended = session.run(end)
    if as_json:
        print_json(grant_document(ended))
    else:
        print_table(_COLUMNS, [_row(ended)])


def _unknown(grant: str) -> InputError:
    return InputError(f"There is no grant {quote_value(grant)}: `machpay-gateway grants list` shows them.")


def _row(grant: Grant) -> tuple[str, ...]:
    status = "active" if grant.is_alive else "ended"
    who = grant.user_id or "itself"
    return grant.id, grant.client_id, who, status, str(grant.scopes) or "-", format_moment(grant.created_at)
