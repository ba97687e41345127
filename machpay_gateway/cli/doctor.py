"""`machpay-gateway doctor`: whether what a gateway would be made of is healthy, and if not, what is to be done."""

import asyncio
from collections.abc import Sequence

import click

from machpay_gateway.assembly import MEMORY_DATABASE, unservable
from machpay_gateway.cli.addresses import address_finding
from machpay_gateway.cli.output import finding_json, json_option, print_findings, print_json
from machpay_gateway.cli.session import Session, pass_session
from machpay_gateway.core.errors import ConfigurationError, GatewayError, told
from machpay_gateway.core.finding import Finding, Status, worst
from machpay_gateway.settings import Settings


@click.command(short_help="Check configuration, database and Redis.")
@json_option
@pass_session
def doctor(session: Session, *, as_json: bool) -> None:
    """Check configuration, database and Redis; say what is found and what to do. Exits with 1 if something is wrong."""
    findings = _checkup(session)
    if as_json:
        shown = [finding_json(finding) for finding in findings]
        print_json({"object": "checkup", "status": worst(findings), "findings": shown})
    else:
        print_findings(findings)
    if worst(findings) is Status.WRONG:
        raise click.exceptions.Exit(1)


def _checkup(session: Session) -> Sequence[Finding]:
    try:
        settings = session.settings()
    except ConfigurationError as exc:
        return [_mistake(line) for line in str(exc).splitlines()]
    if misread := _misread(settings):
        return [misread]
    if mistakes := unservable(settings):
        return [_mistake(mistake) for mistake in mistakes]
    return [
        _configuration(session, settings),
        address_finding(settings),
        *_hosts(settings),
        *asyncio.run(_connected(settings)),
    ]


async def _connected(settings: Settings) -> Sequence[Finding]:
    return [*await _database(settings), *await _redis(settings)]


def _mistake(text: str) -> Finding:
    return Finding("configuration", Status.WRONG, text)  # a mistake names its way out itself


def _misread(settings: Settings) -> Finding | None:
    if settings.redis is None:
        return None
    from machpay_gateway.limiters.redis.checkup import misread

    return misread(settings.redis)


def _configuration(session: Session, settings: Settings) -> Finding:
    source = session.file if session.file.is_file() else f"no {session.file}, so defaults and the environment"
    count, is_closed = len(settings.routes), settings.unlisted_routes == "deny"
    found = f"{source}: {count or 'no'} route{'' if count == 1 else 's'}"
    unlisted = f'unlisted_routes = "{settings.unlisted_routes}"'
    if is_closed and not count:
        found += f", and by {unlisted} every request is refused"
        return Finding("configuration", Status.WARNING, found, "list routes, in the file or in Python")
    if is_closed:
        return Finding("configuration", Status.OK, f"{found}; by {unlisted} all others are refused")
    found += f"; by {unlisted} any valid credential may make all other requests"
    return Finding("configuration", Status.OK, found, 'unlisted_routes = "deny" refuses them')


def _hosts(settings: Settings) -> Sequence[Finding]:
    """Return what is not answered because its host is for pages alone; nothing where there are no pages."""
    if settings.page_hosts is None:
        return []
    if settings.host_warnings:
        return [Finding("hosts", Status.WARNING, warning) for warning in settings.host_warnings]
    bound = ", ".join(f"{pages.setting} {pages.url}" for pages in settings.page_hosts.pages)
    return [Finding("hosts", Status.OK, f"pages have hosts of their own: {bound}")]


async def _database(settings: Settings) -> Sequence[Finding]:
    from machpay_gateway.stores.sql.checkup import database_findings, nothing_is_kept

    if settings.database == MEMORY_DATABASE:
        return [nothing_is_kept()]
    try:
        return await database_findings(settings.database)
    except GatewayError as exc:
        return [Finding("database", Status.WRONG, told(exc))]


async def _redis(settings: Settings) -> Sequence[Finding]:
    if settings.redis is None:
        way_out = 'for more than one worker: redis = "redis://HOST:6379/0"'
        return [Finding("redis", Status.OK, "none is set: limits are counted within one process", way_out)]
    from machpay_gateway.limiters.redis.checkup import redis_findings

    return await redis_findings(settings.redis, prefix=settings.redis_prefix, on_failure=settings.on_limiter_failure)
