"""`machpay-gateway signing-keys`: the keys that sign tokens."""

import time
from collections.abc import Sequence

import click

from machpay_gateway.cli.output import json_option, print_json, print_list, print_table
from machpay_gateway.cli.prompts import confirm
from machpay_gateway.cli.session import CliSession, operator_actor, pass_session, print_database
from machpay_gateway.core.errors import InputError
from machpay_gateway.core.jose.signing import SigningKey, state_at
from machpay_gateway.core.oauth.documents import signing_key_document
from machpay_gateway.core.text import format_moment
from machpay_gateway.gateway import Gateway
from machpay_gateway.settings import MEMORY_DATABASE

_COLUMNS = ("ID", "STATE", "CREATED", "SIGNS FROM")


@click.group("signing-keys")
def signing_keys() -> None:
    """List and rotate the keys that sign tokens."""


@signing_keys.command("list")
@json_option
@pass_session
def list_(session: CliSession, *, as_json: bool) -> None:
    """List the keys: `next` signs soon, `signing` signs now, and `verifying` only verifies what it signed."""

    async def all_(gateway: Gateway) -> Sequence[SigningKey]:
        _refuse_memory(gateway)
        return await gateway.signing.all()

    keys, now = session.run(all_), time.time()
    states = [(key, state_at(keys, key, now)) for key in keys]
    if as_json:
        print_list([signing_key_document(key, state) for key, state in states])
    elif keys:
        print_table(_COLUMNS, [_row(key, state) for key, state in states])
        print_database(session)
    else:
        click.echo(
            f"No signing keys yet in {session.database.name}: the first one is created when it is needed.", err=True
        )


@signing_keys.command(short_help="Create a new key.")
@click.option("--now", "at_once", is_flag=True, help="Sign with it at once and delete all others: ends every token.")
@click.option("--yes", is_flag=True, help="Skip the confirmation.")
@json_option
@pass_session
def rotate(session: CliSession, *, at_once: bool, yes: bool, as_json: bool) -> None:
    """Create a new key. It is published now and signs in ten minutes; the old one is kept as long as it is needed."""
    if at_once:
        confirm("Delete every other key? All access tokens and sessions end.", yes=yes, action="end every token")

    async def rotate_key(gateway: Gateway) -> SigningKey:
        _refuse_memory(gateway)
        return await gateway.signing.rotate(at_once=at_once, actor=operator_actor())

    key = session.run(rotate_key)
    state = "signing" if key.signs_from <= time.time() else "next"
    if as_json:
        print_json(signing_key_document(key, state))
    else:
        print_table(_COLUMNS, [_row(key, state)])


def _refuse_memory(gateway: Gateway) -> None:
    if gateway.settings.database == MEMORY_DATABASE:
        raise InputError("memory:// keeps no signing keys: use sqlite:///FILE or postgresql:// instead")


def _row(key: SigningKey, state: str) -> tuple[str, ...]:
    return key.kid, state, format_moment(key.created_at), format_moment(key.signs_from)
