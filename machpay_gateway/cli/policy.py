"""`machpay-gateway policy`: validate a settings file, and explain which rule applies to a request."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

import click

from machpay_gateway.assembly import policy_for, unservable
from machpay_gateway.cli.output import (
    ROUTE_COLUMNS,
    access_of,
    json_option,
    print_fields,
    print_json,
    print_table,
    printable,
    route_json,
    route_row,
)
from machpay_gateway.cli.session import CliSession, pass_session
from machpay_gateway.core.decision.policy import Policy
from machpay_gateway.core.decision.problem import PROBLEMS
from machpay_gateway.core.decision.reachability import unreachable_limits, unreachable_route_limits
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.limits.rate import Limits, Tier, describe_limits
from machpay_gateway.core.scopes import unknown_scopes
from machpay_gateway.settings import Settings, check_file, load_settings
from machpay_gateway.web.path_reader import PathReader

_VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
_REFUSALS = {
    Reason.MALFORMED_REQUEST: "the path is ambiguous: servers interpret it differently",
    Reason.ROUTE_NOT_FOUND: 'no route lists it, and unlisted_routes is "deny"',
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """The *rule* that applies to a request, or the *reason* why it is refused for every caller.

    *forwarded* is the path that the upstream of the proxy gets, None where the rule refuses to rewrite it.
    """

    method: str
    path: str
    canonical: str | None
    outcome: Literal["rule", "strictest", "unlisted", "refused"]
    rule: Route | None = None
    reason: Reason | None = None
    forwarded: str | None = None


@click.group()
def policy() -> None:
    """Validate settings, and explain which rule applies."""


@policy.command(short_help="Validate a settings file.")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@json_option
@pass_session
def check(session: CliSession, *, file: Path | None, as_json: bool) -> None:
    """Report every mistake in FILE by line and exit with 1, or list its routes. The environment is ignored.

    Limits that can never be reached, and scopes of issuers that no route requires, are warnings.
    """
    path = file or session.settings_file
    mistakes = check_file(path)
    settings = None if mistakes else load_settings({"config": path}, environ={})
    if settings is not None:
        mistakes = [f"{path}: {mistake}" for mistake in unservable(settings)]
        settings = None if mistakes else settings
    warnings = [] if settings is None else _warnings(settings)
    if as_json:
        routes = [] if settings is None else [route_json(route) for route in settings.routes]
        checked = {"mistakes": mistakes, "warnings": warnings, "routes": routes}
        print_json({"object": "policy_check", "file": str(path), **checked})
    elif settings is not None:
        _print_routes(path, settings)
        for warning in warnings:
            click.echo(f"warning: {printable(warning)}", err=True)
    if mistakes:
        if not as_json:
            click.echo("\n".join(printable(mistake) for mistake in mistakes), err=True)
        raise click.exceptions.Exit(1)


@policy.command(short_help="Show which rule applies to a request.")
@click.argument("request", nargs=-1, required=True, metavar="METHOD PATH")
@json_option
@pass_session
def explain(session: CliSession, *, request: tuple[str, ...], as_json: bool) -> None:
    """Show which rule applies to METHOD PATH, and what it requires. A WebSocket handshake is a GET."""
    words = " ".join(request).split()
    if len(words) != 2 or not words[1].startswith("/"):  # noqa: PLR2004 - a method and a path
        raise click.UsageError("Write a method and a path, as in: policy explain GET /v1/skills")
    settings = session.load_settings()
    policy = policy_for(settings, carries=bool(settings.services))
    explanation = explain_request(policy, words[0].upper(), words[1], settings)
    if as_json:
        print_json(_as_json(explanation, settings))
    else:
        _print_explanation(explanation, settings)


def explain_request(policy: Policy, method: str, target: str, settings: Settings | None = None) -> Explanation:
    """Return the rule for *method* and *target*, which is parsed as the proxy with these *settings* parses it."""
    raw = quote(target.partition("#")[0].partition("?")[0], safe=_VISIBLE)
    path = unquote(raw)
    options = None if settings is None else settings.route_options(policy.routes)
    canonical, sent = PathReader(policy, options).read(method, raw.encode())
    match = policy.route_for(RequestFacts(method, canonical, (), None, b""))
    if isinstance(match, Reason):
        return Explanation(method, path, canonical, "refused", reason=match)
    rewriting = match.rewriting
    forwarded = sent if rewriting is None or canonical is None else rewriting.apply(canonical, sent)
    outcome = _outcome(policy, method, canonical, match)
    return Explanation(
        method, path, canonical, outcome, rule=match, forwarded=None if forwarded is None else forwarded.decode()
    )


def _outcome(
    policy: Policy, method: str, canonical: str | None, match: Route
) -> Literal["rule", "strictest", "unlisted"]:
    if any(match is route for route in policy.routes):
        return "rule"
    return "strictest" if canonical is not None and policy.has_other_interpretations(method, canonical) else "unlisted"


def _warnings(settings: Settings) -> list[str]:
    of_routes = unreachable_route_limits(settings.routes, settings.tiers, settings.anonymous)
    return [*unreachable_limits(settings.tiers), *of_routes, *_useless_scopes(settings)]


def _useless_scopes(settings: Settings) -> Iterator[str]:
    """Yield the scopes that the table of an issuer gives and nothing requires, probably mistyped."""
    defined = policy_for(settings).scopes
    for issuer in settings.issuers:
        for value, scopes in (issuer.mapping.scope_map or {}).items():
            for name in unknown_scopes(sorted(scopes), defined):
                yield (
                    f"issuer {issuer.issuer}: scope_map.{value} gives {name!r}, which no route requires; known scopes: "
                    f"{', '.join(sorted(defined))}"
                )


def _print_routes(path: Path, settings: Settings) -> None:
    if settings.routes:
        columns: tuple[str, ...] = ROUTE_COLUMNS
        rows = [route_row(route) for route in settings.routes]
        if settings.services:
            columns = (*columns, "SERVICE")
            rows = [(*row, route.service or "-") for row, route in zip(rows, settings.routes, strict=True)]
        print_table(columns, rows)
    all_others = "are refused" if settings.unlisted_routes == "deny" else "need any valid credential"
    count = len(settings.routes)
    click.echo(f"{path} is valid: {count} route{'' if count == 1 else 's'}; other requests {all_others}.")


def _print_explanation(explanation: Explanation, settings: Settings) -> None:
    fields = [("request", f"{explanation.method} {explanation.path}")]
    if explanation.reason is not None:
        row = PROBLEMS[explanation.reason]
        fields.append(("refused", f"{row.status} {explanation.reason}, for every caller"))
        fields.append(("because", _REFUSALS[explanation.reason]))
    if explanation.rule is not None:
        fields += _rule_fields(explanation, explanation.rule)
        fields += _forwarding_fields(explanation, explanation.rule, settings)
        fields += [
            ("limit", describe_limits_by(by, limits, enforced=is_enforced))
            for by, limits, is_enforced in _route_limits(explanation.rule, settings)
        ]
    print_fields(fields)
    if explanation.rule is not None and not explanation.rule.public:
        click.echo()
        print_table(
            ("TIER", "RATE", "CONCURRENT", "REQUESTS PER WINDOW"),
            [
                (name, _rate_cell(tier), str(tier.concurrency), _requests(tier, explanation.rule.cost))
                for name, tier in settings.tiers.items()
            ],
        )
        if shared := [row for name, tier in settings.tiers.items() for row in _shared_rows(name, tier)]:
            click.echo()
            print_table(("TIER", "SHARED BY THE KEYS OF", "LIMITS"), shared)


def _rule_fields(explanation: Explanation, rule: Route) -> list[tuple[str, str]]:
    if explanation.outcome == "unlisted":
        fields = [("rule", 'none lists it, and unlisted_routes is "authenticated"')]
    else:
        fields = [("rule", rule.match)]
    if explanation.outcome == "strictest":
        fields.append(("because", "some servers interpret the path as one of another rule: all of these rules apply"))
    fields.append(("requires", "nothing: it is public" if rule.public else access_of(rule)))
    if rule.client_certificate == "required":
        fields.append(("client certificate", "required"))
    if not rule.public:
        fields.append(("cost", f"{rule.cost} unit{'' if rule.cost == 1 else 's'} of the rate"))
        fields.append(("environments", ", ".join(sorted(rule.environments)) or "none: no key can be used here"))
    return fields


def _forwarding_fields(explanation: Explanation, rule: Route, settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield where the proxy forwards the request to, if that is not the default, and with which path."""
    if rule.service is not None:
        upstreams = settings.services[rule.service]
        yield "service", f"{rule.service} ({', '.join(upstreams)})"
    if rule.rewriting is not None:
        refused = "refused: the path is another spelling of one that the route rewrites"
        yield "forwarded path", explanation.forwarded or refused


def _route_limits(rule: Route, settings: Settings) -> Iterator[tuple[str, Limits, bool]]:
    """Yield the limits that *rule* has beside those of tiers: whose they are, and whether they are enforced."""
    if rule.public and settings.anonymous is not None:
        yield "address", settings.anonymous.limits, settings.anonymous.enforce
    for _, limit in rule.limits:
        yield limit.by, limit.limits, limit.enforce


def describe_limits_by(by: str, limits: Limits, *, enforced: bool) -> str:
    """Return *limits* and whose they are in a line: `10/minute, 2 concurrent, by account`."""
    return f"{describe_limits(limits)}, by {by}{'' if enforced else ' (only counted)'}"


def _rate_cell(tier: Tier) -> str:
    return tier.rate_text + ("" if tier.enforce else " (only counted)")


def _shared_rows(name: str, tier: Tier) -> Iterator[tuple[str, str, str]]:
    only_counted = "" if tier.enforce else " (only counted)"
    if tier.account_limits is not None:
        yield name, "an account", describe_limits(tier.account_limits) + only_counted
    if tier.owner_limits is not None:
        yield name, "an owner", describe_limits(tier.owner_limits) + only_counted


def _requests(tier: Tier, cost: int) -> str:
    if not cost:
        return "any number"
    return ", ".join(f"{rate.limit // cost} per {rate.window_seconds} s" for rate in tier.limits.rates)


def _as_json(explanation: Explanation, settings: Settings) -> dict[str, Any]:
    reason, rule = explanation.reason, explanation.rule
    limits = [_tier_json(name, tier) for name, tier in settings.tiers.items()]
    route_limits = [] if rule is None else list(_route_limits(rule, settings))
    return {
        "object": "explanation",
        "method": explanation.method,
        "path": explanation.path,
        "canonical_path": explanation.canonical,
        "outcome": explanation.outcome,
        "rule": None if explanation.rule is None else route_json(explanation.rule),
        "service": None if rule is None else rule.service,
        "forwarded_path": explanation.forwarded,
        "code": reason,
        "status": None if reason is None else PROBLEMS[reason].status,
        "limits": [] if rule is None or rule.public else limits,
        "route_limits": [
            {"by": by, "limits": describe_limits(each), "enforced": is_enforced}
            for by, each, is_enforced in route_limits
        ],
    }


def _tier_json(name: str, tier: Tier) -> dict[str, Any]:
    shared = {"account": tier.account_limits, "owner": tier.owner_limits}
    return {
        "tier": name,
        "rate": tier.rate_text,
        "concurrency": tier.concurrency,
        "enforced": tier.enforce,
        **{whose: describe_limits(limits) for whose, limits in shared.items() if limits is not None},
    }
