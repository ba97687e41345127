"""What all commands share: the settings file, an open gateway, and look-ups that fail with a hint."""

import asyncio
import getpass
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from machpay_gateway.assembly import ConfiguredGateway
from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.audit import Actor
from machpay_gateway.core.keys.key import KeyRecord
from machpay_gateway.core.text import quote_value
from machpay_gateway.gateway import Gateway
from machpay_gateway.settings import Options, Settings, load_settings

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class CliSession:
    """One run of the command line; *config* is the value of `--config`."""

    config: str | None = None

    @property
    def file(self) -> Path:
        """The settings file of this run, whether it exists or not."""
        return Path(self.config or os.environ.get("MACHPAY_CONFIG") or "machpay.toml")

    @property
    def options(self) -> Options:
        """The arguments of the settings in Python."""
        return {"config": self.config} if self.config else {}

    def settings(self) -> Settings:
        """Return the settings. Raises ConfigurationError."""
        return load_settings(self.options)

    def run(self, use: Callable[[Gateway], Awaitable[Result]], *, upgrade: bool = False) -> Result:
        """Open a gateway, return the result of *use*, and close the gateway. *upgrade* brings its schema up to date.

        Raises GatewayError.
        """

        async def run_open() -> Result:
            gateway = ConfiguredGateway(**self.options)
            try:
                await gateway.lifecycle.open(upgrade=upgrade)
                return await use(gateway)
            finally:
                await gateway.lifecycle.close()

        return asyncio.run(run_open())


def operator() -> Actor:
    """Return the operating system's user as an actor of the audit log."""
    try:
        return Actor("operator", getpass.getuser())
    except (OSError, KeyError):  # a container's user need not have a name
        return Actor("operator", f"uid {os.getuid()}")


pass_session = click.make_pass_decorator(CliSession)


async def account_for(gateway: Gateway, id_or_name: str | None) -> Account:
    """Return the account with that id or name; None means the only one there is. Raises InputError."""
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
    """Return *record*. Raises InputError when no *key* was found."""
    if record is None:
        raise unknown_key(key)
    return record


def unknown_key(key: str) -> InputError:
    """Return the error for a *key* that does not exist."""
    return InputError(f"There is no key {quote_value(key)}: `machpay-gateway keys list` shows them.")


def unknown_app(client: str) -> InputError:
    """Return the error for a *client* that does not exist."""
    return InputError(f"There is no app {quote_value(client)}: `machpay-gateway clients list` shows them.")


def require_account(account: Account | None, id_or_name: str) -> Account:
    """Return *account*. Raises InputError when it was not found by *id_or_name*."""
    if account is None:
        raise InputError(f"There is no account {quote_value(id_or_name)}: `machpay-gateway accounts list` shows them.")
    return account
