"""`machpay-gateway init`: create a settings file, a database, an account and an admin key."""

import time
from pathlib import Path
from typing import Any

import click

from machpay_gateway.cli.output import account_json, json_option, print_json, warn_of_secret
from machpay_gateway.cli.session import CliSession, operator_actor, pass_session
from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.keys.document import issued_key_document
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.limits.rate import TIERS
from machpay_gateway.core.scopes import KNOWN_SCOPES
from machpay_gateway.gateway import Gateway

Issued = tuple[Account, KeyRecord, str]

SETTINGS = """\
# Settings of MachPay Gateway. A value here is overridden by its variable, such as MACHPAY_DATABASE, and by Python.
# `machpay-gateway policy check` reports every mistake in this file; `policy explain GET /v1/skills` shows which rule
# applies.

# Where accounts and keys are stored: a SQLite file, or postgresql://user@host/name.
database = "sqlite:///machpay.db"

# Requests that match no route below: "deny" refuses them, "authenticated" requires any valid credential.
unlisted_routes = "deny"

# The environments whose keys are accepted.
# environments = ["live", "test"]

# Proxies that may name the client's address, and the one header that they use for it.
# trusted_proxies = ["10.0.0.0/8"]
# client_ip_header = "X-Forwarded-For"

# How many bad credentials one address may present before it is refused for a while.
# failure_limit = "120/minute"

# Send X-RateLimit-* headers besides RateLimit and RateLimit-Policy.
# legacy_headers = false

# Scopes that keys may hold besides those that routes require.
# scopes = ["reports:read"]

# Tiers that are added to, or replace: test 100/minute and 5 at a time, standard 1000/minute and 50,
# enterprise 10000/minute and 500.
# [tiers.partner]
# rate = "5000/minute"
# concurrency = 200

# Routes: a method (* for all) and a path; {id} is one segment, a final {rest:path} matches the rest of the path.
# scopes: "a b" requires both, "a | b" one of them, and no scopes any valid credential. cost: units of the rate, by
# default 1.
[[routes]]
match = "GET /healthz"
public = true

[[routes]]
match = "GET /v1/skills"
scopes = "skills:list"

[[routes]]
match = "POST /v1/skills/execute"
scopes = "skills:execute"

[[routes]]
match = "GET /v1/account"
scopes = "account:read"

[[routes]]
match = "PATCH /v1/account"
scopes = "account:write"

[[routes]]
match = "* /v1/webhooks/{rest:path}"
scopes = "webhooks:manage"

# Apps that act for users (OAuth 2.1): the URLs of the authorization server and of this API. The issuer's host serves
# only the gateway, and no upstream.
# Then: machpay-gateway users create EMAIL, and machpay-gateway clients create NAME.
# [oauth]
# issuer = "https://auth.example.com"
# audience = "https://api.example.com"
# Let apps register themselves, for this account and with no more scopes than these:
# registration_account = "acme"
# registration_scopes = ["account:read"]

# The Console, on which people create, watch and revoke keys: its URL, on a host that serves no upstream. The issuer may
# be on the same host.
# Then: machpay-gateway users create EMAIL --role admin
# [console]
# url = "https://console.example.com"
# api_url = "https://api.example.com"
# idle_minutes = 60      # an idle session ends
# confirm_minutes = 15   # pages on secrets ask for the password again; 0 never asks

# Issuers whose JWTs are accepted besides API keys.
# [[issuers]]
# issuer = "https://id.example.com"
# audience = "https://api.example.com"
# scopes_claim = "permissions"    # by default scope or scp; docs/issuers.md has the settings for each issuer
# tier = "standard"
"""

_NEXT_STEPS = """
Next:
  1. Keep the admin key in a secret manager; it has every management scope.
  2. Write your routes into {file}, then: machpay-gateway policy check
  3. Guard your application: app.add_middleware(MachPayAuth)
  4. Create a key for a client:
     machpay-gateway keys create --account {account} --name first-client --environment test --scope skills:execute\
"""


@click.command()
@click.option("--account", default="main", show_default=True, metavar="NAME", help="Name of the first account.")
@json_option
@pass_session
def init(session: CliSession, *, account: str, as_json: bool) -> None:
    """Create settings, database, account and admin key.

    Writes machpay.toml, prepares the database, and creates a first account and its admin key. Existing files and
    accounts are not changed.
    """
    written = _write_settings(session.settings_file)

    async def prepare(gateway: Gateway) -> Issued | None:
        return None if await gateway.accounts.list() else await _first_account(gateway, account)

    issued = session.run(prepare, creates=True, upgrade=True)
    if as_json:
        print_json(
            {"object": "init", "config": str(session.settings_file), "config_written": written, **_issued_json(issued)}
        )
    else:
        _print_steps(session.settings_file, issued, written=written)
    if issued is not None:
        warn_of_secret()


def _write_settings(path: Path) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(SETTINGS)
    except FileExistsError:
        return False
    except OSError as exc:
        raise ConfigurationError(
            f"{path} cannot be written ({exc.strerror}): name another file with --config."
        ) from exc
    return True


async def _first_account(gateway: Gateway, name: str) -> Issued:
    account = await gateway.accounts.create(name, "standard", actor=operator_actor())
    key, secret = await gateway.keys.create(
        account.id, name="admin", scopes=KNOWN_SCOPES, environment="live", actor=operator_actor()
    )
    return account, key, secret


def _issued_json(issued: Issued | None) -> dict[str, Any]:
    if issued is None:
        return {"account": None, "key": None}
    account, key, secret = issued
    return {"account": account_json(account), "key": issued_key_document(key, secret, time.time(), TIERS)}


def _print_steps(file: Path, issued: Issued | None, *, written: bool) -> None:
    click.echo(f"Settings  {file}{'' if written else ' existed already'}")
    click.echo("Database  ready")
    if issued is None:
        click.echo("Accounts  exist already: no key was created")
        return
    account, key, secret = issued
    click.echo(f"Account   {account.name} ({account.id})")
    click.echo(f"Admin key {key.id} with {key.scopes}\n\n{secret}")
    click.echo(_NEXT_STEPS.format(file=file, account=account.name))
