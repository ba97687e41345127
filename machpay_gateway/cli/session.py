"""Helpers of all commands: the settings, an open gateway, and lookups whose errors include a hint."""

import asyncio
import getpass
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.audit import Actor
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.limits.rate import Tier
from machpay_gateway.core.text import quote_value
from machpay_gateway.settings import Options, Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from machpay_gateway.gateway import Gateway
    from machpay_gateway.stores.sql.engine import Database

_BUSY_SECONDS = 5.0

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class CliSession:
    """The context of one command. *config* is the value of `--config`."""

    config: str | None = None

    @property
    def settings_file(self) -> Path:
        """The path of the settings file, which may not exist."""
        return Path(self.config or os.environ.get("MACHPAY_CONFIG") or "machpay.toml")

    @property
    def options(self) -> Options:
        """The options for `load_settings` and `ConfiguredGateway`."""
        return {"config": self.config} if self.config else {}

    def load_settings(self) -> Settings:
        """Return the settings. Raises ConfigurationError."""
        return load_settings(self.options)

    @property
    def tiers(self) -> Mapping[str, Tier]:
        """The configured tiers. Raises ConfigurationError."""
        return self.load_settings().tiers

    @property
    def database(self) -> "Database":
        """The configured database, not opened. Raises ConfigurationError."""
        from machpay_gateway.stores.sql.engine import Database

        return Database(self.load_settings().database, busy_timeout_seconds=_BUSY_SECONDS)

    def run(
        self, operation: "Callable[[Gateway], Awaitable[Result]]", *, creates: bool = False, upgrade: bool = False
    ) -> Result:
        """Return the result of *operation* on an open gateway, which is closed afterwards. Raises GatewayError.

        Only one that *creates* accounts makes a SQLite database that is not there. With *upgrade*, the database schema
        is upgraded first.
        """
        from machpay_gateway.assembly import ConfiguredGateway

        if not creates and (database := self.database).is_missing:
            raise InputError(
                f"{database.name} is not there: run `machpay-gateway init`, or `machpay-gateway accounts create NAME` "
                f"for an account alone. `database` in {self.settings_file} or MACHPAY_DATABASE names another one."
            )

        async def run_operation() -> Result:
            gateway = ConfiguredGateway(workers=0, **self.options)
            try:
                await gateway.lifecycle.open(upgrade=upgrade)
                return await operation(gateway)
            finally:
                await gateway.lifecycle.close()

        return asyncio.run(run_operation())


def print_database(session: CliSession) -> None:
    """Print on stderr which database a list is from."""
    click.echo(f"Database: {session.database.name}", err=True)


def operator_actor() -> Actor:
    """Return the current operating system user as an audit log actor."""
    try:
        return Actor("operator", getpass.getuser())
    except (OSError, KeyError):  # a user in a container may have no name
        return Actor("operator", f"uid {os.getuid()}")


pass_session = click.make_pass_decorator(CliSession)


async def find_account(gateway: "Gateway", id_or_name: str | None) -> Account:
    """Return the account with this id or name; the only account when *id_or_name* is None. Raises InputError."""
    if id_or_name is not None:
        return require_account(await gateway.accounts.find(id_or_name), id_or_name)
    accounts = await gateway.accounts.list()
    if not accounts:
        raise InputError("There is no account yet: `machpay-gateway accounts create NAME` creates one.")
    if len(accounts) > 1:
        names = ", ".join(account.name for account in accounts[:10])
        raise InputError(f"There are {len(accounts)} accounts: choose one with --account, such as {names}.")
    return accounts[0]


def require_key(record: KeyRecord | None, key: str) -> KeyRecord:
    """Return *record*. Raises InputError that names *key* when it is None."""
    if record is None:
        raise key_not_found(key)
    return record


def key_not_found(key: str) -> InputError:
    """Return the error for a *key* that does not exist."""
    return InputError(f"There is no key {quote_value(key)}: `machpay-gateway keys list` shows them.")


def app_not_found(client: str) -> InputError:
    """Return the error for a *client* that does not exist."""
    return InputError(f"There is no app {quote_value(client)}: `machpay-gateway clients list` shows them.")


def require_account(account: Account | None, id_or_name: str) -> Account:
    """Return *account*. Raises InputError that names *id_or_name* when it is None."""
    if account is None:
        raise InputError(f"There is no account {quote_value(id_or_name)}: `machpay-gateway accounts list` shows them.")
    return account
