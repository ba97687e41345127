"""What every command starts from: the settings that were chosen, and a gateway that is open while it is used."""

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
    """One run of the command line; *config* is what `--config` named."""

    config: str | None = None

    @property
    def file(self) -> Path:
        """The settings file of this run, whether it exists or not."""
        return Path(self.config or os.environ.get("MACHPAY_CONFIG") or "machpay.toml")

    @property
    def options(self) -> Options:
        """What is given to the settings in Python."""
        return {"config": self.config} if self.config else {}

    def settings(self) -> Settings:
        """Return the settings. Raises ConfigurationError."""
        return load_settings(self.options)

    def run(self, use: Callable[[Gateway], Awaitable[Result]], *, upgrade: bool = False) -> Result:
        """Open the gateway, *upgrade* its schema or not, return what *use* makes of it, and close it.

        Raises GatewayError.
        """

        async def opened() -> Result:
            gateway = ConfiguredGateway(**self.options)
            try:
                await gateway.lifecycle.open(upgrade=upgrade)
                return await use(gateway)
            finally:
                await gateway.lifecycle.close()

        return asyncio.run(opened())


def operator() -> Actor:
    """Return who uses the command line, as the audit log names them."""
    try:
        return Actor("operator", getpass.getuser())
    except (OSError, KeyError):  # a container's user need not have a name
        return Actor("operator", f"uid {os.getuid()}")


pass_session = click.make_pass_decorator(CliSession)


async def account_for(gateway: Gateway, id_or_name: str | None) -> Account:
    """Return the account with that id or name; None means the only one there is. Raises InputError."""
    if id_or_name is not None:
        return known_account(await gateway.accounts.find(id_or_name), id_or_name)
    accounts = await gateway.accounts.list()
    if not accounts:
        raise InputError("There is no account yet: `machpay-gateway accounts create NAME` makes one.")
    if len(accounts) > 1:
        names = ", ".join(account.name for account in accounts[:10])
        raise InputError(f"There are {len(accounts)} accounts: choose one by --account, such as {names}.")
    return accounts[0]


def known_key(record: KeyRecord | None, asked: str) -> KeyRecord:
    """Return *record*. Raises InputError when there is none for what was *asked*."""
    if record is None:
        raise unknown_key(asked)
    return record


def unknown_key(asked: str) -> InputError:
    """Return what is said when there is no key for what was *asked*."""
    return InputError(f"There is no key {quote_value(asked)}: `machpay-gateway keys list` shows them.")


def unknown_app(asked: str) -> InputError:
    """Return what is said when there is no app for what was *asked*."""
    return InputError(f"There is no app {quote_value(asked)}: `machpay-gateway clients list` shows them.")


def known_account(account: Account | None, asked: str) -> Account:
    """Return *account*. Raises InputError when there is none for what was *asked*."""
    if account is None:
        raise InputError(f"There is no account {quote_value(asked)}: `machpay-gateway accounts list` shows them.")
    return account
