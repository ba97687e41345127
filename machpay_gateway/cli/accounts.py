"""`machpay-gateway accounts`: the tenants and their tiers."""

import click

from machpay_gateway.cli.output import (
    ACCOUNT_COLUMNS,
    account_json,
    account_row,
    json_option,
    print_json,
    print_list,
    print_table,
)
from machpay_gateway.cli.session import CliSession, operator_actor, pass_session, print_database, require_account
from machpay_gateway.core.accounts.account import Account
from machpay_gateway.gateway import Gateway


@click.group()
def accounts() -> None:
    """Create and list accounts, and set their tier."""


@accounts.command()
@click.argument("name")
@click.option("--tier", default="standard", show_default=True, help="Tier of the account's live keys.")
@json_option
@pass_session
def create(session: CliSession, *, name: str, tier: str, as_json: bool) -> None:
    """Create the account NAME."""
    account = session.run(lambda gateway: gateway.accounts.create(name, tier, actor=operator_actor()), creates=True)
    _print_account(account, session, as_json=as_json)


@accounts.command("list")
@json_option
@pass_session
def list_(session: CliSession, *, as_json: bool) -> None:
    """List all accounts, oldest first."""
    accounts_, tiers = session.run(lambda gateway: gateway.accounts.list()), session.tiers
    if as_json:
        print_list([account_json(account) for account in accounts_])
    elif accounts_:
        print_table(ACCOUNT_COLUMNS, [account_row(account, tiers) for account in accounts_])
        print_database(session)
    else:
        click.echo(
            f"No accounts yet in {session.database.name}: `machpay-gateway accounts create NAME` creates one.", err=True
        )


@accounts.command("set-tier")
@click.argument("account")
@click.argument("tier")
@json_option
@pass_session
def set_tier(session: CliSession, *, account: str, tier: str, as_json: bool) -> None:
    """Set the tier of ACCOUNT (id or name) to TIER; its live keys follow within a second."""

    async def change(gateway: Gateway) -> Account:
        return require_account(await gateway.accounts.set_tier(account, tier, actor=operator_actor()), account)

    _print_account(session.run(change), session, as_json=as_json)


def _print_account(account: Account, session: CliSession, *, as_json: bool) -> None:
    if as_json:
        print_json(account_json(account))
    else:
        print_table(ACCOUNT_COLUMNS, [account_row(account, session.tiers)])
