"""`POST /v1/leaks`: a scanner tells which secrets it found in the open (GitHub's secret scanning partner program).

No credential is asked for: the report is signed. What leaked is ended, or told, as the `leaks` setting says, and
only what leaked: of a key in a rotation's grace the new secret goes on when the old one was found.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from machpay_gateway.admin.documents import document_response
from machpay_gateway.admin.problems import ProblemError
from machpay_gateway.admin.request_body import body_bytes
from machpay_gateway.core.errors import StoreUnavailable, Unavailable
from machpay_gateway.core.keys.audit import Actor, Change
from machpay_gateway.core.keys.key import KeyRecord, KeyStatus
from machpay_gateway.core.keys.leak import LeakAction, LeakMatch, parse_report
from machpay_gateway.core.text import masked
from machpay_gateway.gateway import Gateway
from machpay_gateway.services.keys import Permit, SecretInspection
from machpay_gateway.web.incoming import actor_of, facts_of

if TYPE_CHECKING:
    from machpay_gateway.keysets import SignedReports

PATH = "/v1/leaks"
KEY_ID, SIGNATURE = "Github-Public-Key-Identifier", "Github-Public-Key-Signature"
PROBLEMS = (
    "malformed_body",
    "not_permitted",
    "body_too_large",
    "unsupported_media_type",
    "unavailable",
)
MAX_REPORT_BYTES = 1_048_576  # some 4,000 matches, each with where it was found
# Each is looked up. Without a limit of its own a report of empty ones held all requests up for 1.5 s: there are 349,000
# in a body of that size, their answer is 40 times as large, and what cannot be a secret is judged without waiting.
MAX_MATCHES = 5000
_LONGEST_TEXT = 500
_ATTEMPTS = 10  # as many as the keyring makes for a change

logger = logging.getLogger("machpay_gateway")


Endpoint = Callable[[Request], Awaitable[Response]]


def leaks_endpoint(gateway: Gateway, clock: Callable[[], float] = time.time) -> Endpoint:
    """Return the endpoint that takes reports for *gateway*. *clock* is in seconds since the epoch."""

    async def take(request: Request) -> Response:
        if gateway.reports is None:
            raise ProblemError("not_found", "Reports of leaked secrets are not taken here.")
        body = await body_bytes(request, MAX_REPORT_BYTES)
        try:
            await _refuse_unsigned(gateway.reports, request, body, clock())
            matches = parse_report(body)
            if matches is None:
                raise ProblemError("malformed_body", "A report is a list of matches.")
            if len(matches) > MAX_MATCHES:
                raise ProblemError("body_too_large", f"Send at most {MAX_MATCHES} matches at once.")
            actor = actor_of("scanner", request.headers[KEY_ID], facts_of(request.scope))
            follow_up = _FollowUp(gateway, gateway.reports.leaks.action, actor, clock())
            told = [await follow_up.of(match) for match in matches]
        except Unavailable as exc:
            raise ProblemError("unavailable", "The report cannot be worked on now.") from exc
        return document_response(told)

    return take


async def _refuse_unsigned(reports: "SignedReports", request: Request, body: bytes, now: float) -> None:
    key_id, signature = request.headers.get(KEY_ID, ""), request.headers.get(SIGNATURE, "")
    if not await reports.are_signed(body, key_id=key_id, signature=signature, now=now):
        raise ProblemError("not_permitted", "The report is not signed by the scanner that is configured.")


class _RotatedMeanwhileError(Exception):
    """The key has other secrets than when the leaked one was looked for."""


@dataclass(frozen=True, slots=True)
class _FollowUp:
    """What is done about the matches of one report."""

    gateway: Gateway
    action: LeakAction
    actor: Actor
    now: float

    async def of(self, match: LeakMatch) -> dict[str, str]:
        """Do what follows from *match*, and return what the scanner is told of it."""
        found = await self.gateway.keys.inspect(match.token)
        if found.key is not None and found.key.status(self.now) is not KeyStatus.REVOKED:
            await self._told(found.key, found, match)
            if self.action == "revoke":
                await self._ended(match.token, found)
        return {
            "token_hash": sha256(match.token.encode()).hexdigest(),
            "token_type": match.kind,
            "label": "false_positive" if found.key is None else "true_positive",
        }

    async def _told(self, key: KeyRecord, found: SecretInspection, match: LeakMatch) -> None:
        where = {"url": _shown(match.url), "source": _shown(match.source), "secret": found.position}
        change = Change(self.now, self.actor, "key.leaked", key.account_id, key.id, {}, where)
        # A report is signed for ever, and may be sent again and again by whoever has seen it.
        once = sha256(b"leak\n" + match.token.encode() + b"\n" + match.url.encode()).digest()
        if await self.gateway.store.add_change(change, once):
            logger.warning("a secret of key %s was found in the open, at %r: %s", key.id, where["url"], self.action)

    async def _ended(self, token: str, found: SecretInspection) -> None:
        keyring = self.gateway.keys
        for _ in range(_ATTEMPTS):
            if found.key is None:  # rotated away
                return
            end = keyring.end_grace if found.position == "previous" else keyring.revoke
            try:
                await end(found.key.account_id, found.key.id, actor=self.actor, permit=_not_rotated_since(found.key))
            except _RotatedMeanwhileError:
                found = await keyring.inspect(token)
            else:
                return
        raise StoreUnavailable("the end of a leaked secret: its key was rotated again and again")


def _not_rotated_since(found: KeyRecord) -> Permit:
    # Who is told of a leak rotates, perhaps right now: what was the current secret is then the one from before.
    def permit(record: KeyRecord) -> None:
        if record.secrets != found.secrets:
            raise _RotatedMeanwhileError

    return permit


def _shown(text: str) -> str:
    return masked(text[:_LONGEST_TEXT])
