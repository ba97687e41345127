"""`machpay-gateway doctor`: health checks of configuration, database and Redis, each with a way out.

With `--key`, it explains the limits of a key instead.
"""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from machpay_gateway.assembly import unservable
from machpay_gateway.cli.addresses import check_addresses
from machpay_gateway.cli.output import finding_json, json_option, print_findings, print_json
from machpay_gateway.cli.session import CliSession, pass_session, require_key
from machpay_gateway.core.check_result import CheckResult, CheckStatus, worst
from machpay_gateway.core.errors import ConfigurationError, GatewayError, describe_error
from machpay_gateway.extras import require_extra
from machpay_gateway.settings import Settings

if TYPE_CHECKING:
    from machpay_gateway.gateway import Gateway


@click.command(short_help="Check configuration, database and Redis.")
@click.option("--key", metavar="KEY", help="Explain the limits of this key instead, and where each comes from.")
@json_option
@pass_session
def doctor(session: CliSession, *, key: str | None, as_json: bool) -> None:
    """Check configuration, database and Redis, and suggest fixes. Exits with 1 if something is wrong.

    With --key, show which tiers and routes the limits of a key come from. It reads the database alone.
    """
    findings, key_json = (_run_checks(session), {}) if key is None else _explain_key(session, key)
    if as_json:
        documents = [finding_json(finding) for finding in findings]
        print_json({"object": "checkup", "status": worst(findings), "findings": documents, **key_json})
    else:
        print_findings(findings)
    if worst(findings) is CheckStatus.WRONG:
        raise click.exceptions.Exit(1)


def _run_checks(session: CliSession) -> Sequence[CheckResult]:
    settings, mistakes = _check_settings(session)
    if settings is None:
        return mistakes
    return [
        check_configuration(session.settings_file, settings),
        check_addresses(settings),
        *check_hosts(settings),
        *asyncio.run(check_connections(settings)),
    ]


def _explain_key(session: CliSession, key_id: str) -> tuple[Sequence[CheckResult], dict[str, Any]]:
    """Return the findings about a key, and its limits for scripts; else those that prevent reading it."""
    settings, findings = _check_settings(session)
    if settings is not None:
        findings = asyncio.run(_check_database(settings))
    if settings is None or worst(findings) is CheckStatus.WRONG:
        return [finding for finding in findings if finding.status is CheckStatus.WRONG], {}
    from machpay_gateway.cli.key_findings import key_findings, key_limits_json

    async def explain(gateway: "Gateway") -> tuple[Sequence[CheckResult], dict[str, Any]]:
        key = require_key(await gateway.keys.get(None, key_id), key_id)
        account = await gateway.accounts.find(key.account_id)
        explained = list(key_findings(key, account, gateway.policy, time.time()))
        return explained, {"key": key_limits_json(key, gateway.policy)}

    return session.run(explain)


def _check_settings(session: CliSession) -> tuple[Settings | None, Sequence[CheckResult]]:
    """Return the settings, or every mistake in them."""
    try:
        settings = session.load_settings()
    except ConfigurationError as exc:
        return None, [_mistake(line) for line in str(exc).splitlines()]
    if problem := _check_redis_url(settings):
        return None, [problem]
    if mistakes := unservable(settings):
        return None, [_mistake(mistake) for mistake in mistakes]
    return settings, []


async def check_connections(settings: Settings) -> Sequence[CheckResult]:
    """Return the results for issuers, the database, signing keys and Redis."""
    return [
        *await _check_issuers(settings),
        *await _check_database(settings),
        *await _check_signing_keys(settings),
        *await _check_limiter(settings),
    ]


def _mistake(text: str) -> CheckResult:
    return CheckResult("configuration", CheckStatus.WRONG, text)  # its text names the way out


def _check_redis_url(settings: Settings) -> CheckResult | None:
    if settings.redis is None:
        return None
    from machpay_gateway.limiters.redis.health_checks import check_password_encoding

    return check_password_encoding(settings.redis)


def check_configuration(file: Path, settings: Settings) -> CheckResult:
    """Return what *settings*, which are from *file* if that is there, say of routes."""
    source = file if file.is_file() else f"no {file}, so defaults and the environment"
    count, is_closed = len(settings.routes), settings.unlisted_routes == "deny"
    message = f"{source}: {count or 'no'} route{'' if count == 1 else 's'}"
    unlisted = f'unlisted_routes = "{settings.unlisted_routes}"'
    if is_closed and not count:
        message += f", and by {unlisted} every request is refused"
        return CheckResult("configuration", CheckStatus.WARNING, message, "list routes, in the file or in Python")
    if is_closed:
        return CheckResult("configuration", CheckStatus.OK, f"{message}; by {unlisted} all others are refused")
    message += f"; by {unlisted} any valid credential may make all other requests"
    return CheckResult("configuration", CheckStatus.OK, message, 'unlisted_routes = "deny" refuses them')


def check_hosts(settings: Settings) -> Sequence[CheckResult]:
    """Return warnings about hosts that serve pages only, though other settings name them as the API's."""
    if settings.page_hosts is None:
        return []
    if settings.host_warnings:
        return [CheckResult("hosts", CheckStatus.WARNING, warning) for warning in settings.host_warnings]
    bound = ", ".join(f"{pages.setting} {pages.url}" for pages in settings.page_hosts.pages)
    return [CheckResult("hosts", CheckStatus.OK, f"pages have hosts of their own: {bound}")]


async def _check_issuers(settings: Settings) -> Sequence[CheckResult]:
    if not settings.issuers:
        return []
    from machpay_gateway.keysets.issued import IssuedTokens

    verifier = IssuedTokens(settings.issuers, settings.tiers)
    try:
        loaded = await verifier.load_keys(time.time())
    finally:
        await verifier.close()
    return [_issuer_result(issuer, keys) for issuer, keys in loaded.items()]


def _issuer_result(issuer: str, keys: int | str) -> CheckResult:
    if isinstance(keys, str):
        return CheckResult("issuer", CheckStatus.WRONG, f"{issuer}: {keys}", "correct the issuer, or set jwks")
    return CheckResult("issuer", CheckStatus.OK, f"{issuer} has {keys} usable key{'' if keys == 1 else 's'}")


async def _check_database(settings: Settings) -> Sequence[CheckResult]:
    from machpay_gateway.stores.sql.health_checks import database_findings

    try:
        return await database_findings(settings.database, settings.tiers)
    except GatewayError as exc:
        return [CheckResult("database", CheckStatus.WRONG, describe_error(exc))]


async def _check_signing_keys(settings: Settings) -> Sequence[CheckResult]:
    """Return whether the secret key opens the stored signing keys; nothing before the first one is stored."""
    from machpay_gateway.stores.sql.health_checks import existing_secret_key, stored_signing_keys

    try:
        keys = await stored_signing_keys(settings.database)
        secret = settings.secret_key.encode() if settings.secret_key else existing_secret_key(settings.database)
    except ConfigurationError as exc:
        return [CheckResult("signing keys", CheckStatus.WRONG, str(exc))]
    except GatewayError:
        return []  # `database` says why
    if not keys:
        return []
    if secret is None:
        text = "they are stored, and the secret key that opens them is not here: no session or token can be issued"
        return [CheckResult("signing keys", CheckStatus.WARNING, text, "set MACHPAY_SECRET_KEY, as where it is served")]
    require_extra("tokens", "Opening signing keys")
    from machpay_gateway.keysets.signing import secret_key_mistake

    if mistake := secret_key_mistake(keys, lambda: secret, time.time()):
        return [CheckResult("signing keys", CheckStatus.WRONG, mistake)]
    return [CheckResult("signing keys", CheckStatus.OK, "the secret key opens them")]


async def _check_limiter(settings: Settings) -> Sequence[CheckResult]:
    if settings.redis is None:
        way_out = 'for more than one worker: redis = "redis://HOST:6379/0"'
        return [CheckResult("redis", CheckStatus.OK, "none is set: limits are counted within one process", way_out)]
    from machpay_gateway.limiters.redis.health_checks import check_redis

    return await check_redis(settings.redis, prefix=settings.redis_prefix, on_failure=settings.on_limiter_failure)
