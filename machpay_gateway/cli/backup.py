"""`machpay-gateway backup`: copy the SQLite database while it is in use."""

from pathlib import Path

import click

from machpay_gateway.cli.output import json_option, print_json
from machpay_gateway.cli.session import CliSession, pass_session


@click.command(short_help="Copy the SQLite database to a file.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@json_option
@pass_session
def backup(session: CliSession, file: Path, *, force: bool, as_json: bool) -> None:
    """Copy the SQLite database to FILE while it is in use. The copy is verified, and only its owner may read it.

    The secret key, which encrypts the signing keys in it, is not in the copy: keep both, apart from each other.
    """
    from machpay_gateway.stores.sql.backup import back_up, sqlite_file

    settings = session.load_settings()
    database = sqlite_file(settings.database)
    copy = back_up(database, file, force=force)
    secret = secret_name(settings.secret_key, database)
    if as_json:
        print_json(
            {
                "object": "backup",
                "file": str(file),
                "bytes": copy.size,
                "revision": copy.revision,
                "accounts": copy.accounts,
                "keys": copy.keys,
                "secret_key": secret,
            }
        )
        return
    click.echo(
        f"{file} has {database} as it is now: revision {copy.revision}, {count_records(copy.accounts, copy.keys)}."
    )
    click.echo(f"The secret key is not in it: keep a copy of {secret} too, in another place.", err=True)


def secret_name(secret_key: str | None, database: Path) -> str:
    """Return where the secret key of *database* is."""
    from machpay_gateway.stores.sql.secret import secret_path

    return str(secret_path(database)) if secret_key is None else "the setting secret_key"


def count_records(accounts: int, keys: int) -> str:
    """Return the numbers of accounts and keys in words."""
    return f"{accounts} account{'' if accounts == 1 else 's'} and {keys} key{'' if keys == 1 else 's'}"
