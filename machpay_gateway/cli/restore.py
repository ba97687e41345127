"""`machpay-gateway restore`: put a backup of the SQLite database back."""

from pathlib import Path

import click

from machpay_gateway.cli.backup import count_records, secret_name
from machpay_gateway.cli.output import json_option, print_json
from machpay_gateway.cli.session import CliSession, pass_session


@click.command(short_help="Put a backup of the SQLite database back.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace the database if it exists.")
@json_option
@pass_session
def restore(session: CliSession, file: Path, *, force: bool, as_json: bool) -> None:
    """Replace the SQLite database by the backup FILE. Stop every process that serves from it first.

    What changed since the backup is undone. So keys, grants and users that were revoked or disabled since then work
    again: revoke them again.
    """
    from machpay_gateway.stores.sql.backup import restore as restore_file
    from machpay_gateway.stores.sql.backup import secret_beside_is_missing, sqlite_file

    settings = session.load_settings()
    database = sqlite_file(settings.database)
    copy = restore_file(file, database, force=force)
    secret = secret_name(settings.secret_key, database)
    lacks_secret = settings.secret_key is None and secret_beside_is_missing(database)
    if as_json:
        print_json(
            {
                "object": "restore",
                "file": str(file),
                "database": str(database),
                "revision": copy.revision,
                "accounts": copy.accounts,
                "keys": copy.keys,
                "secret_key": None if lacks_secret else secret,
            }
        )
    else:
        records = count_records(copy.accounts, copy.keys)
        click.echo(f"{database} is as {file} has it: revision {copy.revision}, {records}.")
    click.echo("What was revoked or disabled since the backup works again: revoke it again.", err=True)
    if lacks_secret and copy.signing_keys:
        click.echo(
            f"{secret} is not there, and the signing keys are encrypted with it: put its copy back before the start.",
            err=True,
        )
