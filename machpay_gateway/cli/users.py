"""`machpay-gateway users`: people who sign in, to let apps act for them and to the Console."""

import click

from machpay_gateway.cli.output import json_option, print_json, print_list, print_table
from machpay_gateway.cli.prompts import read_password
from machpay_gateway.cli.session import CliSession, account_for, operator, pass_session
from machpay_gateway.core.accounts.device import PASS_SECONDS
from machpay_gateway.core.accounts.user import ROLES, VIEWER, User
from machpay_gateway.core.errors import InputError
from machpay_gateway.core.oauth.documents import user_document
from machpay_gateway.core.text import format_moment, quote_value
from machpay_gateway.gateway import Gateway

_COLUMNS = ("ID", "E-MAIL", "ROLE", "STATUS", "ACCOUNT", "CREATED")
generate_option = click.option("--generate", is_flag=True, help="Make a password, and print it once, on stdout.")
stdin_option = click.option("--password-stdin", "from_stdin", is_flag=True, help="Read it from stdin; do not ask.")


@click.group()
def users() -> None:
    """Create and list users, and shut them out. Passwords are read from stdin, or asked for."""


@users.command()
@click.argument("email")
@click.option("--account", metavar="ID|NAME", help="Whose user it is; may be left out when there is one account.")
@click.option(
    "--role", type=click.Choice(ROLES), default=VIEWER, show_default=True, help="In the Console: admins make changes."
)
@stdin_option
@generate_option
@json_option
@pass_session
def create(
    session: CliSession, *, email: str, account: str | None, role: str, from_stdin: bool, generate: bool, as_json: bool
) -> None:
    """Create a user who signs in by EMAIL. On a terminal the password is asked for."""
    password = _password(from_stdin=from_stdin, generate=generate)

    async def made(gateway: Gateway) -> User:
        owner = await account_for(gateway, account)
        return await gateway.users.create(owner.id, email, password, role=role, actor=operator())

    _print_user(session.run(made), as_json=as_json, generated=password if generate else None)


@users.command("list")
@click.option("--account", metavar="ID|NAME", help="Only this account's users.")
@json_option
@pass_session
def list_(session: CliSession, *, account: str | None, as_json: bool) -> None:
    """List users, oldest first."""

    async def all_(gateway: Gateway) -> list[User]:
        owner = None if account is None else (await account_for(gateway, account)).id
        return list(await gateway.users.list(owner))

    found = session.run(all_)
    if as_json:
        print_list([user_document(user) for user in found])
    elif found:
        print_table(_COLUMNS, [_row(user) for user in found])
    else:
        click.echo("No users yet: `machpay-gateway users create EMAIL` makes one.", err=True)


@users.command("set-password")
@click.argument("email")
@stdin_option
@generate_option
@json_option
@pass_session
def set_password(session: CliSession, *, email: str, from_stdin: bool, generate: bool, as_json: bool) -> None:
    """Give the user EMAIL (or id) another password; every browser is signed out."""
    password = _password(from_stdin=from_stdin, generate=generate)

    async def changed(gateway: Gateway) -> User:
        return await gateway.users.set_password(await _known(gateway, email), password, actor=operator())

    _print_user(session.run(changed), as_json=as_json, generated=password if generate else None)


@users.command("set-role")
@click.argument("email")
@click.argument("role", type=click.Choice(ROLES))
@json_option
@pass_session
def set_role(session: CliSession, *, email: str, role: str, as_json: bool) -> None:
    """Let the user EMAIL (or id) change things in the Console, or only look; every browser is signed out."""

    async def changed(gateway: Gateway) -> User:
        return await gateway.users.set_role(await _known(gateway, email), role, actor=operator())

    _print_user(session.run(changed), as_json=as_json)


@users.command("pass")
@click.argument("email")
@json_option
@pass_session
def make_pass(session: CliSession, *, email: str, as_json: bool) -> None:
    """Print an address by which EMAIL (or id) can sign in though strangers keep trying their password.

    It works for 15 minutes, and needs the password.
    """

    async def made(gateway: Gateway) -> str:
        console = gateway.settings.console
        if console is None:
            raise InputError("There is no Console to sign in to: set console.url to have one.")
        user = await _known(gateway, email)
        return f"{console.url}/console/sign-in?pass={await gateway.users.make_pass(user, operator())}"

    url = session.run(made)
    if as_json:
        print_json({"object": "sign_in_pass", "url": url, "expires_in": PASS_SECONDS})
    else:
        click.echo(url)


@users.command()
@click.argument("email")
@json_option
@pass_session
def disable(session: CliSession, *, email: str, as_json: bool) -> None:
    """Shut the user EMAIL (or id) out: signed out everywhere, and apps refused from the next request on."""

    async def changed(gateway: Gateway) -> User:
        return await gateway.users.disable(await _known(gateway, email), actor=operator())

    _print_user(session.run(changed), as_json=as_json)


@users.command()
@click.argument("email")
@json_option
@pass_session
def enable(session: CliSession, *, email: str, as_json: bool) -> None:
    """Let the user EMAIL (or id) in again, and the apps that acted for them."""

    async def changed(gateway: Gateway) -> User:
        return await gateway.users.enable(await _known(gateway, email), actor=operator())

    _print_user(session.run(changed), as_json=as_json)


def _password(*, from_stdin: bool, generate: bool) -> str:
    if from_stdin and generate:
        raise click.UsageError("Choose between --password-stdin and --generate.")
    if not generate:
        return read_password(asks=not from_stdin)
    from machpay_gateway.services.users import random_password

    return random_password()


async def _known(gateway: Gateway, id_or_email: str) -> User:
    user = await gateway.users.find(None, id_or_email)
    if user is None:
        raise InputError(f"There is no user {quote_value(id_or_email)}: `machpay-gateway users list` shows them.")
    return user


def _print_user(user: User, *, as_json: bool, generated: str | None = None) -> None:
    if as_json:
        print_json(user_document(user) | ({} if generated is None else {"password": generated}))
    elif generated is None:
        print_table(_COLUMNS, [_row(user)])
    else:
        click.echo(f"{user.email} ({user.id}). Store the password now: it is not shown again.", err=True)
        click.echo(generated)


def _row(user: User) -> tuple[str, ...]:
    status = "active" if user.disabled_at is None else "disabled"
    return user.id, user.email, user.role, status, user.account_id, format_moment(user.created_at)
