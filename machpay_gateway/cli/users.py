"""`machpay-gateway users`: people who sign in to the Console, and to allow apps to act for them."""

import click

from machpay_gateway.cli.output import json_option, print_json, print_list, print_table
from machpay_gateway.cli.prompts import read_password
from machpay_gateway.cli.session import CliSession, find_account, operator_actor, pass_session, print_database
from machpay_gateway.core.accounts.device import PASS_SECONDS
from machpay_gateway.core.accounts.user import ROLES, VIEWER, User
from machpay_gateway.core.errors import InputError
from machpay_gateway.core.oauth.documents import user_document
from machpay_gateway.core.text import format_moment, quote_value
from machpay_gateway.gateway import Gateway

_COLUMNS = ("ID", "E-MAIL", "ROLE", "STATUS", "ACCOUNT", "CREATED")
generate_option = click.option("--generate", is_flag=True, help="Generate a password, and print it once, on stdout.")
stdin_option = click.option(
    "--password-stdin", "from_stdin", is_flag=True, help="Read it from stdin instead of a prompt."
)


@click.group()
def users() -> None:
    """Create, list and disable users. Passwords are read from a prompt or from stdin."""


@users.command()
@click.argument("email")
@click.option("--account", metavar="ID|NAME", help="The account of the user; optional when there is only one.")
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
    """Create a user who signs in with EMAIL. On a terminal there is a prompt for the password."""
    password = _password(from_stdin=from_stdin, generate=generate)

    async def made(gateway: Gateway) -> User:
        owner = await find_account(gateway, account)
        return await gateway.users.create(owner.id, email, password, role=role, actor=operator_actor())

    _print_user(session.run(made), as_json=as_json, generated=password if generate else None)


@users.command("list")
@click.option("--account", metavar="ID|NAME", help="Only this account's users.")
@json_option
@pass_session
def list_(session: CliSession, *, account: str | None, as_json: bool) -> None:
    """List users, oldest first."""

    async def all_(gateway: Gateway) -> list[User]:
        owner = None if account is None else (await find_account(gateway, account)).id
        return list(await gateway.users.list(owner))

    users_ = session.run(all_)
    if as_json:
        print_list([user_document(user) for user in users_])
    elif users_:
        print_table(_COLUMNS, [_row(user) for user in users_])
        print_database(session)
    else:
        click.echo(
            f"No users yet in {session.database.name}: `machpay-gateway users create EMAIL` creates one.", err=True
        )


@users.command("set-password")
@click.argument("email")
@stdin_option
@generate_option
@json_option
@pass_session
def set_password(session: CliSession, *, email: str, from_stdin: bool, generate: bool, as_json: bool) -> None:
    """Set a new password for the user EMAIL (or id), who is signed out everywhere."""
    password = _password(from_stdin=from_stdin, generate=generate)

    async def changed(gateway: Gateway) -> User:
        return await gateway.users.set_password(await _find_user(gateway, email), password, actor=operator_actor())

    _print_user(session.run(changed), as_json=as_json, generated=password if generate else None)


@users.command("set-role")
@click.argument("email")
@click.argument("role", type=click.Choice(ROLES))
@json_option
@pass_session
def set_role(session: CliSession, *, email: str, role: str, as_json: bool) -> None:
    """Set the Console role of the user EMAIL (or id), who is signed out everywhere."""

    async def changed(gateway: Gateway) -> User:
        return await gateway.users.set_role(await _find_user(gateway, email), role, actor=operator_actor())

    _print_user(session.run(changed), as_json=as_json)


@users.command("pass")
@click.argument("email")
@json_option
@pass_session
def create_sign_in_pass(session: CliSession, *, email: str, as_json: bool) -> None:
    """Print a URL with which EMAIL (or id) can sign in while strangers keep trying their password.

    It works for 15 minutes, and still needs the password.
    """

    async def made(gateway: Gateway) -> str:
        console = gateway.settings.console
        if console is None:
            raise InputError("There is no Console to sign in to: set console.url to have one.")
        user = await _find_user(gateway, email)
        return f"{console.url}/console/sign-in?pass={await gateway.users.create_sign_in_pass(user, operator_actor())}"

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
    """Disable the user EMAIL (or id): signed out everywhere, and their apps are refused from the next request on."""

    async def changed(gateway: Gateway) -> User:
        return await gateway.users.disable(await _find_user(gateway, email), actor=operator_actor())

    _print_user(session.run(changed), as_json=as_json)


@users.command()
@click.argument("email")
@json_option
@pass_session
def enable(session: CliSession, *, email: str, as_json: bool) -> None:
    """Enable the user EMAIL (or id) again, and the apps that act for them."""

    async def changed(gateway: Gateway) -> User:
        return await gateway.users.enable(await _find_user(gateway, email), actor=operator_actor())

    _print_user(session.run(changed), as_json=as_json)


def _password(*, from_stdin: bool, generate: bool) -> str:
    if from_stdin and generate:
        raise click.UsageError("Choose between --password-stdin and --generate.")
    if not generate:
        return read_password(prompts=not from_stdin)
    from machpay_gateway.services.users import random_password

    return random_password()


async def _find_user(gateway: Gateway, id_or_email: str) -> User:
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
