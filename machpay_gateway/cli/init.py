"""`machpay-gateway init`: create a settings file, a database, an account and an admin key."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from machpay_gateway.assembly import unservable
from machpay_gateway.cli.init_questions import Answers, ask
from machpay_gateway.cli.new_settings import DEFAULT_DATABASE, NewSettings
from machpay_gateway.cli.output import account_json, json_option, print_json, warn_of_secret
from machpay_gateway.cli.prompts import is_terminal
from machpay_gateway.cli.session import CliSession, operator_actor, pass_session
from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.accounts.management import MANAGING
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.keys.document import issued_key_document
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.limits.rate import TIERS
from machpay_gateway.core.scopes import KNOWN_SCOPES
from machpay_gateway.gateway import Gateway
from machpay_gateway.settings import load_settings

Issued = tuple[Account, KeyRecord, str]

SETTINGS = NewSettings().render()


@click.command()
@click.option("--account", default="main", show_default=True, metavar="NAME", help="Name of the first account.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    metavar="NAME[=TEXT]",
    help="A scope of your API, and what it allows; or a comma list. Repeatable.",
)
@click.option(
    "--route",
    "routes",
    multiple=True,
    metavar='"METHOD PATH [SCOPES]"',
    help='A route, and what it requires: scopes, or "public". Repeatable.',
)
@click.option("--application", metavar="MODULE:NAME", help="Your FastAPI application, for the scopes that it requires.")
@click.option("--database", metavar="URL", help=f"Where accounts and keys are stored; default: {DEFAULT_DATABASE}.")
@click.option("--redis", metavar="URL", help="Where several processes count their limits together.")
@click.option("--upstream", metavar="URL", help="Where `machpay-gateway serve` forwards requests.")
@click.option("--yes", is_flag=True, help="Ask nothing on a terminal.")
@json_option
@pass_session
def init(  # noqa: PLR0913 - what is chosen, by option
    session: CliSession,
    *,
    account: str,
    scopes: tuple[str, ...],
    routes: tuple[str, ...],
    application: str | None,
    database: str | None,
    redis: str | None,
    upstream: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Create settings, database, account and admin key.

    Writes machpay.toml, prepares the database, and creates a first account and its admin key. On a terminal it asks for
    what is not given. Existing files and accounts are not changed.
    """
    file = session.settings_file
    chosen = Answers(tuple(scopes), tuple(routes), application, database, redis, upstream)
    is_new = not file.exists()
    if not is_new and chosen != Answers():
        raise click.UsageError(f"{file} exists already and is not changed: edit it, or name another one with --config.")
    if is_new and is_terminal() and not yes and not as_json:
        chosen = ask(chosen, file)
    written = is_new and _write_settings(file, chosen.settings())

    async def prepare(gateway: Gateway) -> Issued | None:
        return None if await gateway.accounts.list() else await _first_account(gateway, account)

    issued = session.run(prepare, creates=True, upgrade=True)
    if as_json:
        print_json({"object": "init", "config": str(file), "config_written": written, **_issued_json(issued)})
    else:
        _print_steps(session, issued, written=written)
    if issued is not None:
        warn_of_secret()


def _write_settings(path: Path, settings: NewSettings) -> bool:
    """Write *settings* to *path*; return False if it exists. Raises ConfigurationError for a mistake in them.

    The environment does not matter: what is written has to be right by itself.
    """
    text = settings.render()
    checked = load_settings(settings.options(), environ={})
    # The usual database needs no driver, and MACHPAY_DATABASE may override it.
    if settings.database != DEFAULT_DATABASE and (mistakes := unservable(checked)):
        raise ConfigurationError("\n".join(mistakes))
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    except OSError as exc:
        raise ConfigurationError(
            f"{path} cannot be written ({exc.strerror}): name another file with --config."
        ) from exc
    return True


async def _first_account(gateway: Gateway, name: str) -> Issued:
    scopes = _admin_scopes(gateway)
    account = await gateway.accounts.create(name, "standard", actor=operator_actor())
    key, secret = await gateway.keys.create(
        account.id, name="admin", scopes=scopes, environment="live", actor=operator_actor()
    )
    return account, key, secret


def _admin_scopes(gateway: Gateway) -> Sequence[str]:
    """Return the scopes of the admin key: all of the project, which it can pass on; without any, the default ones."""
    try:
        defined = tuple(gateway.scopes)
    except ConfigurationError as exc:  # the application may need what is not here yet
        click.echo(f"warning: {exc}; the admin key has no scopes of it", err=True)
        defined = gateway.policy.scopes
    own = [name for name in defined if name not in KNOWN_SCOPES]
    return [MANAGING, *own] if own else KNOWN_SCOPES


def _issued_json(issued: Issued | None) -> dict[str, Any]:
    if issued is None:
        return {"account": None, "key": None}
    account, key, secret = issued
    return {"account": account_json(account), "key": issued_key_document(key, secret, time.time(), TIERS)}


def _print_steps(session: CliSession, issued: Issued | None, *, written: bool) -> None:
    file, settings = session.settings_file, session.load_settings()
    click.echo(f"Settings  {file}{'' if written else ' existed already'}")
    click.echo(f"Database  {session.database.name} is ready")
    if issued is None:
        click.echo("Accounts  exist already: no key was created")
        return
    account, key, secret = issued
    click.echo(f"Account   {account.name} ({account.id})")
    click.echo(f"Admin key {key.id} with {key.scopes}\n\n{secret}\n\nNext:")
    scope = next((f" --scope {name}" for name in key.scopes if name != MANAGING), "")
    guard = "app.add_middleware(MachPayAuth)"
    if settings.upstreams:
        guard = "machpay-gateway serve"
    create = f"machpay-gateway keys create --account {account.name} --name first-client --environment test{scope}"
    steps = (
        "Keep the admin key in a secret manager: it creates keys over the API.",
        f"Check {file} whenever you change it: machpay-gateway policy check",
        f"Guard your API: {guard}",
        f"Create a key for a client:\n     {create}",
    )
    for number, step in enumerate(steps, start=1):
        click.echo(f"  {number}. {step}")
