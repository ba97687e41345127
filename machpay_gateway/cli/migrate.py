"""`machpay-gateway migrate`: from the schema of an older version to this one's."""

import asyncio

import click

from machpay_gateway.assembly import MEMORY_DATABASE
from machpay_gateway.cli.output import json_option, print_json
from machpay_gateway.cli.session import CliSession, pass_session
from machpay_gateway.core.errors import ConfigurationError


@click.command(short_help="Bring the database's schema up to this version's.")
@json_option
@pass_session
def migrate(session: CliSession, *, as_json: bool) -> None:
    """Bring the database's schema up to this version's; one that is up to date stays as it is.

    Make a backup first: there is no way back. Processes of an older version refuse to start from then on.
    """
    url = session.settings().database
    if url == MEMORY_DATABASE:
        raise ConfigurationError(f'{url} keeps nothing: name a database, as in database = "sqlite:///machpay.db"')
    before, after = asyncio.run(_migrated(url))
    if as_json:
        print_json({"object": "migration", "from": before, "to": after})
    elif before == after:
        click.echo(f"The database's schema is at revision {after} already.")
    else:
        click.echo(f"The database's schema went from revision {before or 'none'} to {after}.")


async def _migrated(url: str) -> tuple[str | None, str]:
    from machpay_gateway.stores.schema import HEAD
    from machpay_gateway.stores.sql import SqlStore

    store = SqlStore(url)
    try:
        return await store.upgrade(), HEAD
    finally:
        await store.close()
