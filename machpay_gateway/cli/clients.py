"""`machpay-gateway clients`: OAuth clients, the apps that users may allow to act for them."""

import time

import click

from machpay_gateway.cli.output import (
    json_option,
    limit_option,
    print_fields,
    print_json,
    print_list,
    print_table,
    secret_end,
    warn_of_secret,
)
from machpay_gateway.cli.prompts import confirm
from machpay_gateway.cli.session import (
    CliSession,
    app_not_found,
    find_account,
    operator_actor,
    pass_session,
    print_database,
)
from machpay_gateway.cli.values import Duration, split_names
from machpay_gateway.core.keys.key import ENVIRONMENTS
from machpay_gateway.core.oauth.client import AUTHORIZATION_CODE, GRANT_TYPES, REFRESH_TOKEN, OAuthClient
from machpay_gateway.core.oauth.documents import client_document, issued_client_document
from machpay_gateway.core.text import format_moment
from machpay_gateway.core.unchanged import UNCHANGED
from machpay_gateway.gateway import Gateway

_COLUMNS = ("ID", "NAME", "KIND", "ENVIRONMENT", "GRANT TYPES", "SCOPES", "CREATED")
scope_option = click.option("--scope", "scopes", multiple=True, callback=split_names, help="A scope, or a comma list.")
uri_option = click.option(
    "--redirect-uri", "redirect_uris", multiple=True, help="Where users are sent back to. Repeatable."
)
types_option = click.option(
    "--grant-type",
    "grant_types",
    multiple=True,
    type=click.Choice(GRANT_TYPES),
    help="How it may get tokens. Repeatable.",
)


@click.group()
def clients() -> None:
    """Create, change and delete the apps that may act for users."""


@clients.command()
@click.argument("name")
@click.option("--account", metavar="ID|NAME", help="The account that owns the app; optional when there is only one.")
@scope_option
@uri_option
@types_option
@click.option("--environment", type=click.Choice(ENVIRONMENTS), default="live", show_default=True, help="Its traffic.")
@click.option(
    "--public", "is_public", is_flag=True, help="Runs in a browser or on users' machines, so it has no secret."
)
@click.option("--no-pkce", is_flag=True, help="Do not require PKCE, which detects stolen codes.")
@click.option("--dpop", is_flag=True, help="Issue only tokens that are bound to a key (DPoP).")
@json_option
@pass_session
def create(  # noqa: PLR0913 - what a client is made of
    session: CliSession,
    *,
    name: str,
    account: str | None,
    scopes: tuple[str, ...],
    redirect_uris: tuple[str, ...],
    grant_types: tuple[str, ...],
    environment: str,
    is_public: bool,
    no_pkce: bool,
    dpop: bool,
    as_json: bool,
) -> None:
    """Create the app NAME. Its secret is printed once, on stdout; all else on stderr."""

    async def create_client(gateway: Gateway) -> tuple[OAuthClient, str | None]:
        owner = await find_account(gateway, account)
        return await gateway.oauth_clients.create(
            owner.id,
            name=name,
            scopes=scopes,
            redirect_uris=redirect_uris,
            grant_types=grant_types or (AUTHORIZATION_CODE, REFRESH_TOKEN),
            environment=environment,
            is_public=is_public,
            requires_pkce=not no_pkce,
            binds_tokens=dpop,
            actor=operator_actor(),
        )

    _print_issued(*session.run(create_client), as_json=as_json)


@clients.command("list")
@click.option("--account", metavar="ID|NAME", help="Only this account's apps.")
@limit_option
@click.option("--after", metavar="CLIENT", help="Start after this client; for the next page.")
@json_option
@pass_session
def list_(session: CliSession, *, account: str | None, limit: int, after: str | None, as_json: bool) -> None:
    """List apps, newest first."""

    async def page(gateway: Gateway) -> list[OAuthClient]:
        owner = None if account is None else (await find_account(gateway, account)).id
        if after is not None and await gateway.oauth_clients.get_even_deleted(owner, after) is None:
            raise app_not_found(after)
        return list(await gateway.oauth_clients.list(owner, after=after, limit=limit + 1))

    rows = session.run(page)
    page_rows, has_more = rows[:limit], len(rows) > limit
    if as_json:
        print_list([client_document(client) for client in page_rows], has_more=has_more)
        return
    if not page_rows:
        click.echo(f"No apps match in {session.database.name}: `machpay-gateway clients create` creates one.", err=True)
        return
    print_table(_COLUMNS, [_row(client) for client in page_rows])
    if has_more:
        click.echo(f"There are more: add --after {page_rows[-1].id}", err=True)
    else:
        print_database(session)


@clients.command()
@click.argument("client")
@json_option
@pass_session
def show(session: CliSession, *, client: str, as_json: bool) -> None:
    """Show CLIENT, by its id."""
    _print_client(
        _require(session.run(lambda gateway: gateway.oauth_clients.get(None, client)), client), as_json=as_json
    )


@clients.command(short_help="Change the given fields of an app.")
@click.argument("client")
@click.option("--name", help="The name that users see.")
@scope_option
@uri_option
@click.option("--no-redirect-uris", is_flag=True, help="Remove all redirect URIs.")
@types_option
@click.option("--pkce/--no-pkce", "requires_pkce", default=None, help="Whether PKCE is required.")
@click.option("--dpop/--no-dpop", "binds_tokens", default=None, help="Whether its tokens are bound to a key.")
@json_option
@pass_session
def update(  # noqa: PLR0913 - as above
    session: CliSession,
    *,
    client: str,
    name: str | None,
    scopes: tuple[str, ...],
    redirect_uris: tuple[str, ...],
    no_redirect_uris: bool,
    grant_types: tuple[str, ...],
    requires_pkce: bool | None,
    binds_tokens: bool | None,
    as_json: bool,
) -> None:
    """Change the given fields of CLIENT; lists are replaced. Its tokens lose removed scopes at once."""
    if no_redirect_uris and redirect_uris:
        raise click.UsageError("Choose between --redirect-uri and --no-redirect-uris.")
    changed = session.run(
        lambda gateway: gateway.oauth_clients.update(
            None,
            client,
            name=UNCHANGED if name is None else name,
            scopes=scopes or UNCHANGED,
            redirect_uris=() if no_redirect_uris else redirect_uris or UNCHANGED,
            grant_types=grant_types or UNCHANGED,
            requires_pkce=UNCHANGED if requires_pkce is None else requires_pkce,
            binds_tokens=UNCHANGED if binds_tokens is None else binds_tokens,
            actor=operator_actor(),
        )
    )
    _print_client(_require(changed, client), as_json=as_json)


@clients.command("rotate-secret", short_help="Issue a new secret for an app.")
@click.argument("client")
@click.option(
    "--grace",
    type=Duration(),
    default="24h",
    show_default=True,
    help="How long the current one still works; 0: not at all.",
)
@json_option
@pass_session
def rotate_secret(session: CliSession, *, client: str, grace: int, as_json: bool) -> None:
    """Issue a new secret for CLIENT, printed once, on stdout; all else on stderr."""
    issued = session.run(
        lambda gateway: gateway.oauth_clients.rotate_secret(None, client, grace_seconds=grace, actor=operator_actor())
    )
    if issued is None:
        raise app_not_found(client)
    _print_issued(*issued, as_json=as_json)


@clients.command(short_help="Delete an app permanently.")
@click.argument("client")
@click.option("--yes", is_flag=True, help="Skip the confirmation.")
@json_option
@pass_session
def delete(session: CliSession, *, client: str, yes: bool, as_json: bool) -> None:
    """Delete CLIENT permanently: its tokens are refused from the next request on."""
    record = _require(session.run(lambda gateway: gateway.oauth_clients.get(None, client)), client)
    confirm(f"Delete {record.id} ({record.name}) permanently?", yes=yes, action="delete the app")
    deleted = session.run(lambda gateway: gateway.oauth_clients.delete(None, client, actor=operator_actor()))
    _print_client(_require(deleted, client), as_json=as_json)


def _require(client: OAuthClient | None, client_id: str) -> OAuthClient:
    if client is None:
        raise app_not_found(client_id)
    return client


def _print_issued(client: OAuthClient, secret: str | None, *, as_json: bool) -> None:
    if as_json:
        print_json(issued_client_document(client, secret))
    else:
        print_fields(_fields(client), err=True)
        if secret is not None:
            click.echo(secret)
    if secret is not None:
        warn_of_secret()


def _print_client(client: OAuthClient, *, as_json: bool) -> None:
    if as_json:
        print_json(client_document(client))
    else:
        print_fields(_fields(client))


def _row(client: OAuthClient) -> tuple[str, ...]:
    types, created = ", ".join(client.grant_types), format_moment(client.created_at)
    return client.id, client.name, _kind(client), client.environment, types, str(client.scopes) or "-", created


def _kind(client: OAuthClient) -> str:
    kind = "public" if client.is_public else "confidential"
    return f"{kind}, registered itself" if client.is_self_registered else kind


def _fields(client: OAuthClient) -> list[tuple[str, str]]:
    proof = "required" if client.requires_pkce else "not required: stolen codes are not detected"
    fields = [
        ("client", client.id),
        ("name", client.name),
        ("account", client.account_id),
        ("environment", client.environment),
        ("kind", _kind(client)),
        ("grant types", ", ".join(client.grant_types)),
        ("scopes", str(client.scopes) or "none"),
        ("PKCE", proof),
        ("tokens", "bound to a key (DPoP)" if client.binds_tokens else "bearer, or bound to a key if it proves one"),
        ("created", format_moment(client.created_at)),
    ]
    fields += [("redirect URI", uri) for uri in client.redirect_uris]
    fields += [("secret", secret.masked) for secret in client.secrets[:1]]
    return fields + [("previous secret", f"{old.masked}, {secret_end(old, time.time())}") for old in client.secrets[1:]]
