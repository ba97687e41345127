"""`POST /v1/leaks`: reports of leaked secrets (GitHub's secret scanning partner program).

Reports need no credential, because they are signed. A leaked secret is revoked or only logged, according to the `leaks`
setting. Nothing else is revoked: if the previous secret leaks during a grace period, the current one keeps working.
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
from machpay_gateway.admin.request_body import read_body
from machpay_gateway.core.errors import StoreUnavailable, Unavailable
from machpay_gateway.core.keys.audit import Actor, Change
from machpay_gateway.core.keys.key import KeyRecord, KeyStatus
from machpay_gateway.core.keys.leak import LeakAction, LeakMatch, parse_report
from machpay_gateway.core.text import mask_secrets
from machpay_gateway.gateway import Gateway
from machpay_gateway.services.keys import SecretInspection
from machpay_gateway.services.optimistic_locking import Precondition
from machpay_gateway.web.request_facts import actor_of, facts_of

if TYPE_CHECKING:
    from machpay_gateway.keysets.reports import SignedReports

PATH = "/v1/leaks"
KEY_ID, SIGNATURE = "Github-Public-Key-Identifier", "Github-Public-Key-Signature"
PROBLEMS = (
    "malformed_body",
    "not_permitted",
    "body_too_large",
    "unsupported_media_type",
    "unavailable",
)
MAX_REPORT_BYTES = 1_048_576  # about 4,000 matches with their URLs
# Each match is a look-up. Without this limit, a report of 349,000 empty matches, which fit into a body of that size,
# blocked all requests for 1.5 s: malformed secrets are rejected without an await. The response is 40 times as large.
MAX_MATCHES = 5000
_MAX_TEXT = 500
_ATTEMPTS = 10  # as many as `services.keys` makes for a change

logger = logging.getLogger("machpay_gateway")


Endpoint = Callable[[Request], Awaitable[Response]]


def leaks_endpoint(gateway: Gateway, clock: Callable[[], float] = time.time) -> Endpoint:
    """Return the endpoint that receives reports for *gateway*. *clock* is in seconds since the epoch."""

    async def endpoint(request: Request) -> Response:
        if gateway.reports is None:
            raise ProblemError("not_found", "Reports of leaked secrets are not accepted here.")
        body = await read_body(request, MAX_REPORT_BYTES)
        try:
            await _verify_signature(gateway.reports, request, body, clock())
            matches = parse_report(body)
            if matches is None:
                raise ProblemError("malformed_body", "A report is a list of matches.")
            if len(matches) > MAX_MATCHES:
                raise ProblemError("body_too_large", f"Send at most {MAX_MATCHES} matches at once.")
            actor = actor_of("scanner", request.headers[KEY_ID], facts_of(request.scope))
            handler = _LeakHandler(gateway, gateway.reports.leaks.action, actor, clock())
            feedback = [await handler.handle(match) for match in matches]
        except Unavailable as exc:
            raise ProblemError("unavailable", "The report cannot be processed now.") from exc
        return document_response(feedback)

    return endpoint


async def _verify_signature(reports: "SignedReports", request: Request, body: bytes, now: float) -> None:
    key_id, signature = request.headers.get(KEY_ID, ""), request.headers.get(SIGNATURE, "")
    if not await reports.are_signed(body, key_id=key_id, signature=signature, now=now):
        raise ProblemError("not_permitted", "The report is not signed by the configured scanner.")


class _ConcurrentRotationError(Exception):
    """The key's secrets have changed since the leaked one was looked up."""


@dataclass(frozen=True, slots=True)
class _LeakHandler:
    """Reacts to the matches of one report."""

    gateway: Gateway
    action: LeakAction
    actor: Actor
    now: float

    async def handle(self, match: LeakMatch) -> dict[str, str]:
        """React to *match*, and return the feedback for the scanner."""
        inspection = await self.gateway.keys.inspect(match.token)
        if inspection.key is not None and inspection.key.status(self.now) is not KeyStatus.REVOKED:
            await self._log(inspection.key, inspection, match)
            if self.action == "revoke":
                await self._revoke(match.token, inspection)
        return {
            "token_hash": sha256(match.token.encode()).hexdigest(),
            "token_type": match.kind,
            "label": "false_positive" if inspection.key is None else "true_positive",
        }

    async def _log(self, key: KeyRecord, inspection: SecretInspection, match: LeakMatch) -> None:
        where = {"url": _masked(match.url), "source": _masked(match.source), "secret": inspection.position}
        change = Change(self.now, self.actor, "key.leaked", key.account_id, key.id, {}, where)
        # A signature never expires, so anybody who has seen a report can replay it.
        once = sha256(b"leak\n" + match.token.encode() + b"\n" + match.url.encode()).digest()
        if await self.gateway.store.add_change(change, once):
            logger.warning("a secret of key %s was found in public, at %r: %s", key.id, where["url"], self.action)

    async def _revoke(self, token: str, inspection: SecretInspection) -> None:
        keys = self.gateway.keys
        for _ in range(_ATTEMPTS):
            if (key := inspection.key) is None:  # a rotation has ended the leaked secret
                return
            end = keys.end_grace if inspection.position == "previous" else keys.revoke
            try:
                await end(key.account_id, key.id, actor=self.actor, precondition=_secrets_unchanged(key))
            except _ConcurrentRotationError:
                inspection = await keys.inspect(token)
            else:
                return
        raise StoreUnavailable(f"revocation of a leaked secret: its key was rotated {_ATTEMPTS} times meanwhile")


def _secrets_unchanged(key: KeyRecord) -> Precondition[KeyRecord]:
    # The owner of a leaked key may rotate it at the same time. The leaked secret is then the previous one.
    def precondition(record: KeyRecord) -> None:
        if record.secrets != key.secrets:
            raise _ConcurrentRotationError

    return precondition


def _masked(text: str) -> str:
    return mask_secrets(text[:_MAX_TEXT])
