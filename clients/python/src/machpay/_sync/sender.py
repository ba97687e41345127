"""Sends calls, with retries until there is a response or no retry makes sense.

Generated from `_async` by generate.py: edit it there.
"""

import logging
import time
from dataclasses import dataclass, field, replace

import httpx2

from machpay._call import Call, headers_for
from machpay._credential import Authorization
from machpay._effects import Effects, Sleep
from machpay._options import CONNECT_SECONDS, Options
from machpay._response import Response
from machpay._retry import FailedAttempt, Outcome, failed_attempt, wait_before_retry

_log = logging.getLogger("machpay")
_MIN_TIMEOUT_SECONDS = 0.001  # a sleep may overrun the deadline, and a timeout must be positive


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends any call with any authorization."""

    http: httpx2.Client = field(repr=False)
    options: Options
    effects: Effects = field(default_factory=Effects, repr=False)
    sleep: Sleep = field(default=time.sleep, repr=False)

    def send(self, call: Call, authorization: Authorization) -> Response:
        """Return the last response to *call*, whatever its status. Raises APIConnectionError if there is none."""
        started_at = self.effects.monotonic()
        received_at: float | None = None  # the earliest time
        retries = 0
        while True:
            left = started_at + self.options.deadline - self.effects.monotonic()
            seconds = min(self.options.timeout, max(left, _MIN_TIMEOUT_SECONDS))
            sent_at = self.effects.monotonic()
            outcome = self._attempt(call, authorization, retries + 1, seconds)
            if isinstance(outcome, Response) and outcome.is_success:
                return outcome
            if received_at is None and not (isinstance(outcome, FailedAttempt) and outcome.is_unsent):
                received_at = sent_at
            now = self.effects.monotonic()
            wait = wait_before_retry(
                call,
                outcome,
                self.options,
                retries=retries,
                elapsed=now - started_at,
                draw=self.effects.draw(),
                received_for=None if received_at is None else now - received_at,
            )
            if wait is None:
                break
            _log.debug("%s %s is retried in %.3f s", call.method, call.path, wait)
            self.sleep(wait)
            retries += 1
        if isinstance(outcome, FailedAttempt):
            raise outcome.error from outcome.cause
        return outcome

    def _attempt(self, call: Call, authorization: Authorization, number: int, seconds: float) -> Outcome:
        deadline = self.effects.monotonic() + seconds
        address = self.options.base_url if call.server == "base_url" else self.options.auth_url
        request = self.http.build_request(
            call.method,
            address + call.path,
            params=call.query or None,
            content=call.body,
            headers=headers_for(call, authorization),
            timeout=httpx2.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds)),
        )
        if authorization.header is None:
            request.headers.pop("Authorization", None)  # the user's http_client may add one
        try:
            # No `auth` and no redirects, whatever the user's http_client has: secrets go to the configured server only.
            response_stream = self.http.send(request, stream=True, auth=None, follow_redirects=False)
            try:
                body = self._read_body(response_stream, deadline)
            finally:
                response_stream.close()
        except httpx2.RequestError as exc:
            outcome = failed_attempt(call, address, exc)
            _log.debug("%s %s got no response (attempt %d): %s", call.method, call.path, number, type(exc).__name__)
            return outcome
        response = Response(response_stream.status_code, response_stream.headers, body, number, self.effects.now())
        if not response.is_success:
            response = replace(response, body=authorization.redact(body))
        details = (call.method, call.path, response.status, number, response.request_id)
        _log.debug("%s %s got status %d (attempt %d, request %s)", *details)
        return response

    def _read_body(self, response: httpx2.Response, deadline: float) -> bytes:
        """Return the body. The deadline stops a server that sends it slowly, within the timeout of each read."""
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if self.effects.monotonic() > deadline:
                raise httpx2.ReadTimeout("the body does not end", request=response.request)
        return bytes(body)
