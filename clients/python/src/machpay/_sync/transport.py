"""Sends calls: one attempt after the other, until there is an answer or no sense in going on.

Generated from `_async` by generate.py: edit it there.
"""

import logging
import time
from dataclasses import dataclass, field, replace

import httpx2

from machpay._call import Call, headers_for
from machpay._credential import Credential
from machpay._effects import Effects, Sleep
from machpay._options import CONNECT_SECONDS, Options
from machpay._response import Response
from machpay._retry import Lost, Outcome, lost, wait_before_retry
from machpay.errors import error_for

_log = logging.getLogger("machpay")
_LEAST_SECONDS = 0.001  # a sleep may overrun what was left, and a timeout is never negative


@dataclass(frozen=True, slots=True)
class Transport:
    """Knows how to send, and nothing of what is sent."""

    http: httpx2.Client = field(repr=False)
    credential: Credential
    options: Options
    effects: Effects = field(default_factory=Effects, repr=False)
    sleep: Sleep = field(default=time.sleep, repr=False)

    def send(self, call: Call) -> Response:
        """Return the answer to *call*, a success. Anything else is raised."""
        if call.needs_idempotency_key:
            call = replace(call, idempotency_key=self.effects.new_idempotency_key())
        began = self.effects.monotonic()
        retries = 0
        while True:
            left = began + self.options.deadline - self.effects.monotonic()
            outcome = self._attempt(call, retries + 1, min(self.options.timeout, max(left, _LEAST_SECONDS)))
            if isinstance(outcome, Response) and outcome.is_success:
                return outcome
            elapsed = self.effects.monotonic() - began
            wait = wait_before_retry(
                call, outcome, self.options, retries=retries, elapsed=elapsed, draw=self.effects.draw()
            )
            if wait is None:
                break
            _log.debug("%s %s is tried again in %.3f s", call.method, call.path, wait)
            self.sleep(wait)
            retries += 1
        if isinstance(outcome, Lost):
            raise outcome.error from outcome.cause
        raise error_for(outcome)

    def _attempt(self, call: Call, number: int, seconds: float) -> Outcome:
        ends = self.effects.monotonic() + seconds
        request = self.http.build_request(
            call.method,
            self.options.base_url + call.path,
            params=call.query or None,
            content=call.body,
            headers=headers_for(call, self.credential),
            timeout=httpx2.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds)),
        )
        try:
            # No `auth`, no redirects: the credential goes where base_url says, whatever a given http_client does.
            answer = self.http.send(request, stream=True, auth=None, follow_redirects=False)
            try:
                body = self._body(answer, ends)
            finally:
                answer.close()
        except httpx2.RequestError as exc:
            outcome = lost(call, self.options.base_url, exc)
            _log.debug("%s %s got no answer (attempt %d): %s", call.method, call.path, number, type(exc).__name__)
            return outcome
        response = Response(answer.status_code, answer.headers, body, number, self.effects.now())
        if not response.is_success:
            response = replace(response, body=self.credential.hidden_in(body))
        told = (call.method, call.path, response.status, number, response.request_id)
        _log.debug("%s %s was answered with %d (attempt %d, request %s)", *told)
        return response

    def _body(self, answer: httpx2.Response, ends: float) -> bytes:
        """Return the body. A server that drips it keeps within each read's time, and not within the whole one."""
        body = bytearray()
        for chunk in answer.iter_bytes():
            body += chunk
            if self.effects.monotonic() > ends:
                raise httpx2.ReadTimeout("the body does not end", request=answer.request)
        return bytes(body)
