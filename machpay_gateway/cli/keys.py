"""`machpay-gateway keys`: API keys, of every account, from creation to revocation."""

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
from machpay_gateway.cli.prompts import confirm, is_terminal
from machpay_gateway.cli.session import (
    CliSession,
    find_account,
    key_not_found,
    operator_actor,
    pass_session,
    print_database,
    require_key,
)
from machpay_gateway.cli.usage import usage
from machpay_gateway.cli.values import Duration, none_if_empty, split_names
from machpay_gateway.core.keys.document import key_document
from machpay_gateway.core.keys.key import ENVIRONMENTS, KeyRecord, KeyStatus
from machpay_gateway.core.unchanged import UNCHANGED
from machpay_gateway.gateway import Gateway
from machpay_gateway.services.keys import SecretInspection

_LONGEST_SECRET = 4096  # characters that are read from stdin


@click.group()
def keys() -> None:
    """Create, list, rotate and revoke API keys."""


@keys.command()
@click.option("--account", metavar="ID|NAME", help="The account that owns the key; optional when there is only one.")
@click.option("--name", required=True, help="A name for people.")
@click.option("--owner", callback=none_if_empty, help="Whom within the account the key is for.")
@click.option("--scope", "scopes", multiple=True, callback=split_names, help="A scope, or a comma list. Repeatable.")
@click.option("--environment", type=click.Choice(ENVIRONMENTS), required=True, help="The environment of the key.")
@click.option(
    "--allow-ip",
    "allowed_ips",
    multiple=True,
    callback=split_names,
    help="An address or network. Repeatable; none: any.",
)
@click.option("--expires-in", type=Duration(), help="Lifetime, such as 12h, 90d or 2w; unlimited by default.")
@json_option
@pass_session
def create(  # noqa: PLR0913 - what a key is made of, by option
    session: CliSession,
    *,
    account: str | None,
    name: str,
    owner: str | None,
    scopes: tuple[str, ...],
    environment: str,
    allowed_ips: tuple[str, ...],
    expires_in: int | None,
    as_json: bool,
) -> None:
    """Create a key. Its secret is printed once, on stdout; all else on stderr."""
    expires_at = None if expires_in is None else time.time() + expires_in

    async def issue(gateway: Gateway) -> tuple[KeyRecord, str]:
        return await gateway.keys.create(
            (await find_account(gateway, account)).id,
            name=name,
            owner=owner,
            scopes=scopes,
            environment=environment,
            allowed_ips=allowed_ips,
            expires_at=expires_at,
            actor=operator_actor(),
        )

    print_issued(*session.run(issue), time.time(), session.tiers, as_json=as_json)


@keys.command("list")
@click.option("--account", metavar="ID|NAME", help="Only this account's keys.")
@click.option("--environment", type=click.Choice(ENVIRONMENTS), help="Only keys of this environment.")
@click.option("--status", type=click.Choice(KeyStatus, case_sensitive=False), help="Only keys with this status.")
@limit_option
@click.option("--after", metavar="KEY", help="Start after this key; for the next page.")
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
        account_id = None if account is None else (await find_account(gateway, account)).id
        if after is not None:
            require_key(await gateway.keys.get(account_id, after), after)
        # One more than the limit shows whether there are more.
        return list(
            await gateway.keys.list(account_id, environment=environment, status=status, after=after, limit=limit + 1)
        )

    records, now, tiers = session.run(page), time.time(), session.tiers
    page_records, has_more = records[:limit], len(records) > limit
    if as_json:
        print_list([key_document(record, now, tiers) for record in page_records], has_more=has_more)
        return
    if not page_records:
        click.echo(f"No keys match in {session.database.name}: `machpay-gateway keys create` creates one.", err=True)
        return
    print_table(KEY_COLUMNS, [key_row(record, now, tiers) for record in page_records])
    if has_more:
        click.echo(f"There are more: add --after {page_records[-1].id}", err=True)
    else:
        print_database(session)


@keys.command()
@click.argument("key")
@json_option
@pass_session
def show(session: CliSession, *, key: str, as_json: bool) -> None:
    """Show KEY, by its id."""
    record = require_key(session.run(lambda gateway: gateway.keys.get(None, key)), key)
    _print_key(record, session, as_json=as_json)


@keys.command(short_help="Change the settings of a key.")
@click.argument("key")
@click.option("--name", help="A name for people.")
@click.option("--scope", "scopes", multiple=True, help='A scope, or a comma list, of all it then has; "" for none.')
@click.option("--owner", help='Whom within the account the key is for; "" for nobody in particular.')
@click.option("--tier", help="A tier of its own, instead of the account's; \"\" for the account's again.")
@json_option
@pass_session
def update(
    session: CliSession,
    *,
    key: str,
    name: str | None,
    scopes: tuple[str, ...],
    owner: str | None,
    tier: str | None,
    as_json: bool,
) -> None:
    """Change the settings of KEY that are given. They hold from its next request on."""
    if name is None and not scopes and owner is None and tier is None:
        raise click.UsageError("Nothing to change: give --name, --scope, --owner or --tier.")
    changed = session.run(
        lambda gateway: gateway.keys.update(
            None,
            key,
            name=UNCHANGED if name is None else name,
            scopes=split_names(None, None, scopes) if scopes else UNCHANGED,
            owner=UNCHANGED if owner is None else owner or None,
            own_tier=UNCHANGED if tier is None else tier or None,
            actor=operator_actor(),
        )
    )
    _print_key(require_key(changed, key), session, as_json=as_json)


@keys.command(short_help="Issue a new secret for a key.")
@click.argument("key")
@click.option(
    "--grace",
    type=Duration(),
    default="24h",
    show_default=True,
    help="How long the current secret still works; 0: not at all.",
)
@json_option
@pass_session
def rotate(session: CliSession, *, key: str, grace: int, as_json: bool) -> None:
    """Issue a new secret for KEY, printed once, on stdout; all else on stderr."""
    issued = session.run(lambda gateway: gateway.keys.rotate(None, key, grace_seconds=grace, actor=operator_actor()))
    if issued is None:
        raise key_not_found(key)
    print_issued(*issued, time.time(), session.tiers, as_json=as_json)


@keys.command(short_help="Revoke a key permanently.")
@click.argument("key")
@click.option("--yes", is_flag=True, help="Skip the confirmation.")
@json_option
@pass_session
def revoke(session: CliSession, *, key: str, yes: bool, as_json: bool) -> None:
    """Revoke KEY permanently. Every process refuses it within a second."""
    record = require_key(session.run(lambda gateway: gateway.keys.get(None, key)), key)
    confirm(f"Revoke {record.id} ({record.name}, {record.masked}) permanently?", yes=yes, action="revoke the key")
    revoked = session.run(lambda gateway: gateway.keys.revoke(None, key, actor=operator_actor()))
    _print_key(require_key(revoked, key), session, as_json=as_json)


@keys.command(short_help="Show which key a secret belongs to.")
@click.argument("misplaced", nargs=-1, metavar="")
@json_option
@pass_session
def inspect(session: CliSession, *, misplaced: tuple[str, ...], as_json: bool) -> None:
    """Show which key a secret belongs to. It is read from stdin or a prompt. Exits with 1 if no key has it."""
    if misplaced:
        # Its text is not repeated: that would put it into logs too.
        raise click.UsageError("Secrets are read from standard input, never from arguments: ... inspect < FILE")
    secret = _read_secret()
    if not secret:
        raise click.UsageError("Standard input is empty: the secret is read from there.")
    inspection = session.run(lambda gateway: gateway.keys.inspect(secret))
    if as_json:
        record = None if inspection.key is None else key_document(inspection.key, time.time(), session.tiers)
        print_json(
            {
                "object": "inspection",
                "environment": inspection.environment,
                "position": inspection.position,
                "key": record,
            }
        )
    elif inspection.key is not None:
        print_fields(
            [
                ("this secret is", _position(inspection, inspection.key)),
                *key_fields(inspection.key, time.time(), session.tiers),
            ]
        )
    if inspection.environment is None:
        raise click.ClickException("This is not a secret of MachPay Gateway: its format or its checksum is wrong.")
    if inspection.key is None:
        raise click.ClickException(
            f"No key here has this {inspection.environment} secret: it was replaced, or issued elsewhere."
        )


keys.add_command(usage)


def _read_secret() -> str:
    # Never an argument: the shell's history and the process list would show it.
    if is_terminal():
        return str(click.prompt("Secret", hide_input=True, err=True)).strip()
    return sys.stdin.read(_LONGEST_SECRET).strip()


def _position(inspection: SecretInspection, record: KeyRecord) -> str:
    return "current" if inspection.position == "current" else f"previous, {secret_end(record.secrets[-1], time.time())}"


def _print_key(record: KeyRecord, session: CliSession, *, as_json: bool) -> None:
    if as_json:
        print_json(key_document(record, time.time(), session.tiers))
    else:
        print_fields(key_fields(record, time.time(), session.tiers))
