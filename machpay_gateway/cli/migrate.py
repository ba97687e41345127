"""`machpay-gateway migrate`: upgrade the database schema of an older version."""

import asyncio

import click

from machpay_gateway.cli.output import json_option, print_json
from machpay_gateway.cli.session import CliSession, pass_session
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.settings import MEMORY_DATABASE


@click.command(short_help="Upgrade the database schema to this version.")
@json_option
@pass_session
def migrate(session: CliSession, *, as_json: bool) -> None:
    """Upgrade the database schema to this version; a schema that is up to date is not changed.

    Make a backup first: there is no downgrade. Processes of the release before go on, and may start and reload.
    """
    url = session.load_settings().database
    if url == MEMORY_DATABASE:
        raise ConfigurationError(f'{url} keeps nothing: name a database, as in database = "sqlite:///machpay.db"')
    before, after = asyncio.run(_migrate(url))
    if as_json:
        print_json({"object": "migration", "from": before, "to": after})
    elif before == after:
        click.echo(f"The database's schema is at revision {after} already.")
    else:
        click.echo(f"The database's schema went from revision {before or 'none'} to {after}.")


async def _migrate(url: str) -> tuple[str | None, str]:
    from machpay_gateway.stores.schema import HEAD
    from machpay_gateway.stores.sql import SqlStore

    store = SqlStore(url)
    try:
        before = await store.upgrade()
        return before, max(before or "", HEAD)  # one that is newer stays as it is
    finally:
        await store.close()
