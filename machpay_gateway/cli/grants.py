"""`machpay-gateway grants`: what users let apps do, and its end."""

import time

import click

from machpay_gateway.assembly import Gateway, oauth_of
from machpay_gateway.cli.output import json_option, print_json, print_list, print_table
from machpay_gateway.cli.session import Session, account_for, operator, pass_session
from machpay_gateway.core.errors import InputError
from machpay_gateway.core.input import format_moment, shown
from machpay_gateway.core.oauth.documents import grant_document
from machpay_gateway.core.oauth.grant import Grant

_COLUMNS = ("ID", "APP", "USER", "STATUS", "SCOPES", "CREATED")


@click.group()
def grants() -> None:
    """List and end what users let apps do."""


@grants.command("list")
@click.option("--account", metavar="ID|NAME", help="Only those of this account's users and apps.")
@click.option("--client", metavar="CLIENT", help="Only those of this app.")
@json_option
@pass_session
def list_(session: Session, *, account: str | None, client: str | None, as_json: bool) -> None:
    """List grants, newest first."""

    async def all_(gateway: Gateway) -> list[Grant]:
        owner = None if account is None else (await account_for(gateway, account)).id
        return list(await gateway.endings.list(owner, client_id=client))

    found = session.run(all_)
    if as_json:
        print_list([grant_document(grant) for grant in found])
    elif found:
        print_table(_COLUMNS, [_row(grant) for grant in found])
    else:
        click.echo("No such grants: they come of users who let an app in.", err=True)


@grants.command()
@click.argument("grant")
@json_option
@pass_session
def revoke(session: Session, *, grant: str, as_json: bool) -> None:
    """End GRANT, by its id: the app is refused from its next request on, and has to ask the user again."""

    async def ended(gateway: Gateway) -> Grant:
        store = oauth_of(gateway.store)
        known = await store.grant(grant, time.time()) if grant.isprintable() else None
        if known is None:
            raise InputError(f"There is no grant {shown(grant)}: `machpay-gateway grants list` shows them.")
        await gateway.endings.end(None, known, actor=operator())
        return await store.grant(grant, time.time()) or known

    found = session.run(ended)
    if as_json:
        print_json(grant_document(found))
    else:
        print_table(_COLUMNS, [_row(found)])


def _row(grant: Grant) -> tuple[str, ...]:
    status = "active" if grant.is_alive else "ended"
    who = grant.user_id or "itself"
    return grant.id, grant.client_id, who, status, str(grant.scopes) or "-", format_moment(grant.created_at)
