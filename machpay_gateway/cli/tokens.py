"""`machpay-gateway tokens`: how the settings of its issuer map a token."""

import asyncio
import time
from hashlib import sha256
from typing import IO, Any

import click

from machpay_gateway.cli.output import json_option, print_fields, print_json
from machpay_gateway.cli.session import CliSession, pass_session
from machpay_gateway.core.decision.credential import SignedToken
from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.jose.compact import MAX_TOKEN_BYTES, parse_compact
from machpay_gateway.core.text import format_moment_or_none
from machpay_gateway.settings import Settings

_PREFIX = b"Bearer "


@click.group()
def tokens() -> None:
    """Explain tokens of issuers."""


@tokens.command(short_help="Show the caller of a token, or why it is refused.")
@click.argument("file", type=click.File("rb"), default="-")
@json_option
@pass_session
def explain(session: CliSession, *, file: IO[bytes], as_json: bool) -> None:
    """Show which caller the token in FILE is, by default on stdin, or why it is refused, and exit with 1 then.

    The token is verified as a request's is, with the keys of its issuer. The gateway's own are not explained.
    """
    token = file.read(2 * MAX_TOKEN_BYTES).strip().removeprefix(_PREFIX).strip()
    if not token:
        raise click.UsageError("There is no token: give its file, or send it to standard input.")
    result = asyncio.run(_verify(session.load_settings(), token))
    is_accepted = isinstance(result, Principal)
    document = {"issuer": _issuer_of(token), **_caller_json(result if isinstance(result, Principal) else None)}
    reason = None if isinstance(result, Principal) else result
    if as_json:
        print_json({"object": "token_explanation", "accepted": is_accepted, "reason": reason, **document})
    else:
        shown = [(name, _as_text(value)) for name, value in document.items() if is_accepted or name == "issuer"]
        print_fields([("accepted", "yes"), *shown] if reason is None else [("refused", reason), *shown])
    if not is_accepted:
        raise click.exceptions.Exit(1)


async def _verify(settings: Settings, token: bytes) -> Principal | str:
    """Return the principal of *token*, or why it is refused. Raises KeysetUnavailable and ConfigurationError."""
    from machpay_gateway.keysets.issued import IssuedTokens

    verifier = IssuedTokens(settings.issuers, settings.tiers)
    try:
        return await verifier.verify(SignedToken(token, sha256(token).digest()), time.time())
    finally:
        await verifier.close()


def _issuer_of(token: bytes) -> str | None:
    compact = parse_compact(token)
    issuer = None if isinstance(compact, str) else compact.claims.get("iss")
    return issuer if isinstance(issuer, str) else None


def _caller_json(principal: Principal | None) -> dict[str, Any]:
    if principal is None:
        return {}
    return {
        "id": principal.id,
        "account_id": principal.account_id,
        "owner": principal.owner,
        "environment": principal.environment,
        "tier": principal.tier,
        "scopes": list(principal.scopes),
        "expires_at": format_moment_or_none(principal.expires_at),
    }


def _as_text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(value) or "none"
    return "none" if value is None else str(value)
