"""`machpay-gateway keys`: API keys from their creation to their end. The operator sees every account's."""

import sys
import time

import click

from machpay_gateway.cli.output import (
    KEY_COLUMNS,
    json_option,
    key_fields,
    key_row,
    limit_option,
    print_fields,
    print_issued,
    print_json,
    print_list,
    print_table,
    secret_end,
)
from machpay_gateway.cli.prompts import confirmed, is_terminal
from machpay_gateway.cli.session import CliSession, account_for, known_key, operator, pass_session, unknown_key
from machpay_gateway.cli.usage import usage
from machpay_gateway.cli.values import Duration, listed
from machpay_gateway.core.keys.document import key_document
from machpay_gateway.core.keys.key import ENVIRONMENTS, KeyRecord, KeyStatus
from machpay_gateway.gateway import Gateway
from machpay_gateway.services.keys import SecretInspection

_LONGEST_SECRET = 4096  # characters of stdin that are looked at


@click.group()
def keys() -> None:
    """Create, list, rotate and revoke API keys."""


@keys.command()
@click.option("--account", metavar="ID|NAME", help="Whose key it is; may be left out when there is one account.")
@click.option("--name", required=True, help="What people call the key.")
@click.option("--scope", "scopes", multiple=True, callback=listed, help="A scope, or a comma list. Repeatable.")
@click.option("--environment", type=click.Choice(ENVIRONMENTS), required=True, help="Which traffic it is for.")
@click.option(
    "--allow-ip", "allowed_ips", multiple=True, callback=listed, help="An address or network. Repeatable; none: any."
)
@click.option("--expires-in", type=Duration(), help="How long it works: 12h, 90d, 2w. Never ends when left out.")
@json_option
@pass_session
def create(
    session: CliSession,
    *,
    account: str | None,
    name: str,
    scopes: tuple[str, ...],
    environment: str,
    allowed_ips: tuple[str, ...],
    expires_in: int | None,
    as_json: bool,
) -> None:
    """Create a key. Its secret goes to stdout, once; all else to stderr."""
    expires_at = None if expires_in is None else time.time() + expires_in

    async def issue(gateway: Gateway) -> tuple[KeyRecord, str]:
        owner = await account_for(gateway, account)
        return await gateway.keys.create(
            owner.id,
            name=name,
            scopes=scopes,
            environment=environment,
            allowed_ips=allowed_ips,
            expires_at=expires_at,
            actor=operator(),
        )

    print_issued(*session.run(issue), time.time(), as_json=as_json)


@keys.command("list")
@click.option("--account", metavar="ID|NAME", help="Only this account's keys.")
@click.option("--environment", type=click.Choice(ENVIRONMENTS), help="Only keys for this traffic.")
@click.option("--status", type=click.Choice(KeyStatus, case_sensitive=False), help="Only keys in this state.")
@limit_option
@click.option("--after", metavar="KEY", help="Go on after this key.")
@json_option
@pass_session
def list_(
    session: CliSession,
    *,
    account: str | None,
    environment: str | None,
    status: KeyStatus | None,
    limit: int,
    after: str | None,
    as_json: bool,
) -> None:
    """List keys, newest first."""

    async def page(gateway: Gateway) -> list[KeyRecord]:
        owner = None if account is None else (await account_for(gateway, account)).id
        if after is not None:
            known_key(await gateway.keys.get(owner, after), after)
        # One more than asked for tells whether there are more.
        return list(
            await gateway.keys.list(owner, environment=environment, status=status, after=after, limit=limit + 1)
        )

    found, now = session.run(page), time.time()
    shown_keys, has_more = found[:limit], len(found) > limit
    if as_json:
        print_list([key_document(record, now) for record in shown_keys], has_more=has_more)
        return
    if not shown_keys:
        click.echo("No such keys: `machpay-gateway keys create` makes one.", err=True)
        return
    print_table(KEY_COLUMNS, [key_row(record, now) for record in shown_keys])
    if has_more:
        click.echo(f"There are more: add --after {shown_keys[-1].id}", err=True)


@keys.command()
@click.argument("key")
@json_option
@pass_session
def show(session: CliSession, *, key: str, as_json: bool) -> None:
    """Show KEY, by its id."""
    _print_key(known_key(session.run(lambda gateway: gateway.keys.get(None, key)), key), as_json=as_json)


@keys.command(short_help="Give a key a new secret.")
@click.argument("key")
@click.option(
    "--grace",
    type=Duration(),
    default="24h",
    show_default=True,
    help="How long the current secret still works; 0: ends.",
)
@json_option
@pass_session
def rotate(session: CliSession, *, key: str, grace: int, as_json: bool) -> None:
    """Give KEY a new secret, which goes to stdout, once; all else to stderr."""
    issued = session.run(lambda gateway: gateway.keys.rotate(None, key, grace_seconds=grace, actor=operator()))
    if issued is None:
        raise unknown_key(key)
    print_issued(*issued, time.time(), as_json=as_json)


@keys.command(short_help="End a key for good.")
@click.argument("key")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@pass_session
def revoke(session: CliSession, *, key: str, yes: bool, as_json: bool) -> None:
    """End KEY for good. Every process that serves it knows within a second."""
    record = known_key(session.run(lambda gateway: gateway.keys.get(None, key)), key)
    confirmed(f"Revoke {record.id} ({record.name}, {record.masked}) for good?", yes=yes, doing="revoke the key")
    revoked = session.run(lambda gateway: gateway.keys.revoke(None, key, actor=operator()))
    _print_key(known_key(revoked, key), as_json=as_json)


@keys.command(short_help="Tell what a secret is.")
@click.argument("misplaced", nargs=-1, metavar="")
@json_option
@pass_session
def inspect(session: CliSession, *, misplaced: tuple[str, ...], as_json: bool) -> None:
    """Tell what a secret is: read from stdin, or asked for without echo. Exits with 1 when no key here has it."""
    if misplaced:
        # Its text is not repeated: that would put it into logs too.
        raise click.UsageError("Secrets are read from standard input, never from arguments: ... inspect < FILE")
    secret = _read_secret()
    if not secret:
        raise click.UsageError("Nothing came on standard input, where the secret is read from.")
    found = session.run(lambda gateway: gateway.keys.inspect(secret))
    if as_json:
        record = None if found.key is None else key_document(found.key, time.time())
        print_json(
            {"object": "inspection", "environment": found.environment, "position": found.position, "key": record}
        )
    elif found.key is not None:
        print_fields([("this secret is", _position(found, found.key)), *key_fields(found.key, time.time())])
    if found.environment is None:
        raise click.ClickException("This is not a secret of ours: its shape or its checksum is wrong.")
    if found.key is None:
        raise click.ClickException(
            f"No key here has this {found.environment} secret: it was replaced, or made elsewhere."
        )


keys.add_command(usage)


def _read_secret() -> str:
    # Never an argument: those stand in the shell's history and in the process list.
    if is_terminal():
        return str(click.prompt("Secret", hide_input=True, err=True)).strip()
    return sys.stdin.read(_LONGEST_SECRET).strip()


def _position(found: SecretInspection, record: KeyRecord) -> str:
    return "current" if found.position == "current" else f"previous, {secret_end(record.secrets[-1], time.time())}"


def _print_key(record: KeyRecord, *, as_json: bool) -> None:
    if as_json:
        print_json(key_document(record, time.time()))
    else:
        print_fields(key_fields(record, time.time()))
