"""Sends calls, with retries until there is a response or no retry makes sense.

Generated from `_async` by generate.py: edit it there.
"""

import logging
import time
from dataclasses import dataclass, field, replace
from typing import cast

import httpx2

from machpay._call import Call, headers_for
from machpay._connections import Connections
from machpay._credential import Authorization
from machpay._effects import Effects, Sleep
from machpay._hooks import RequestEvent, ResponseEvent
from machpay._options import CONNECT_SECONDS, Options
from machpay._response import Response
from machpay._retry import Attempt, FailedAttempt, failed_attempt, wait_before_retry
from machpay._sync.stream import Stream

_log = logging.getLogger("machpay")
_MIN_TIMEOUT_SECONDS = 0.001  # a sleep may overrun the deadline, and a timeout must be positive


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends any call with any authorization."""

    connections: Connections = field(repr=False)
    options: Options
    effects: Effects = field(default_factory=Effects, repr=False)
    sleep: Sleep = field(default=time.sleep, repr=False)

    @property
    def http(self) -> httpx2.Client:
        """The HTTP client to send with. Raises ClientClosedError."""
        return self.connections.open()

    def send(self, call: Call, authorization: Authorization) -> Response:
        """Return the last response to *call*, whatever its status. Raises APIConnectionError if there is none."""
        outcome = self._with_retries(call, authorization, is_stream=False)
        return cast("Response", outcome)

    def open(self, call: Call, authorization: Authorization) -> Stream | Response:
        """Return the stream of a successful response to *call*, and any other as `send` does."""
        return self._with_retries(call, authorization, is_stream=True)

    def _with_retries(self, call: Call, authorization: Authorization, *, is_stream: bool) -> Stream | Response:
        options = self.options.changed(call.timeout, call.max_retries)
        started_at = self.effects.monotonic()
        received_at: float | None = None  # the earliest time
        retries = 0
        while True:
            sent_at = self.effects.monotonic()
            left = started_at + options.deadline - sent_at
            deadline = sent_at + min(options.timeout, max(left, _MIN_TIMEOUT_SECONDS))
            address = options.base_url if call.server == "base_url" else options.auth_url
            attempt = Attempt(call, authorization, retries + 1, address, sent_at, deadline)
            outcome = self._attempt(attempt, is_stream=is_stream)
            if isinstance(outcome, Stream) or (isinstance(outcome, Response) and outcome.is_success):
                return outcome
            if received_at is None and not (isinstance(outcome, FailedAttempt) and outcome.is_unsent):
                received_at = sent_at
            now = self.effects.monotonic()
            wait = wait_before_retry(
                call,
                outcome,
                options,
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

    def _attempt(self, attempt: Attempt, *, is_stream: bool) -> Stream | Response | FailedAttempt:
        call = attempt.call
        request = self._request(attempt)
        if self.options.hooks.on_request is not None:
            self.options.hooks.on_request(RequestEvent(method=call.method, url=attempt.url, attempt=attempt.number))
        outcome: Stream | Response | FailedAttempt
        try:
            outcome = response = self._exchange(attempt, request, is_stream=is_stream)
            details = (call.method, call.path, response.status, attempt.number, response.request_id)
            _log.debug("%s %s got status %d (attempt %d, request %s)", *details)
        except httpx2.RequestError as exc:
            outcome = failed_attempt(call, attempt.address, exc)
            kind = type(exc).__name__
            _log.debug("%s %s got no response (attempt %d): %s", call.method, call.path, attempt.number, kind)
        except RuntimeError as exc:
            if reason := self.connections.explain(exc):
                raise reason from exc
            raise
        if self.options.hooks.on_response is not None:
            self.options.hooks.on_response(self._event(attempt, outcome))
        return outcome

    def _request(self, attempt: Attempt) -> httpx2.Request:
        call, authorization = attempt.call, attempt.authorization
        seconds = attempt.deadline - attempt.started_at
        headers = headers_for(call, authorization, self.options.headers if call.server == "base_url" else ())
        if authorization.dpop_key is not None:
            proof = authorization.dpop_key.proof(
                call.method, attempt.url, access_token=authorization.access_token, now=self.effects.now()
            )
            headers.append(("DPoP", proof))
        request = self.http.build_request(
            call.method,
            attempt.url,
            params=call.query or None,
            content=call.body,
            headers=headers,
            timeout=httpx2.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds)),
        )
        if authorization.header is None:
            request.headers.pop("Authorization", None)  # the user's http_client may add one
        return request

    def _exchange(self, attempt: Attempt, request: httpx2.Request, *, is_stream: bool) -> Stream | Response:
        # No `auth` and no redirects, whatever the user's http_client has: secrets go to the configured server only.
        http_response = self.http.send(request, stream=True, auth=None, follow_redirects=False)
        response = Response(http_response.status_code, http_response.headers, b"", attempt.number, self.effects.now())
        if is_stream and response.is_success:
            return Stream(http_response, response, attempt.call, attempt.address)
        try:
            body = self._read_body(http_response, attempt.deadline)
        finally:
            http_response.close()
        return replace(response, body=body if response.is_success else attempt.authorization.redact(body))

    def _read_body(self, response: httpx2.Response, deadline: float) -> bytes:
        """Return the body. The deadline stops a server that sends it slowly, within the timeout of each read."""
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if self.effects.monotonic() > deadline:
                raise httpx2.ReadTimeout("the body does not end", request=response.request)
        return bytes(body)

    def _event(self, attempt: Attempt, outcome: Stream | Response | FailedAttempt) -> ResponseEvent:
        seconds = self.effects.monotonic() - attempt.started_at
        event = ResponseEvent(method=attempt.call.method, url=attempt.url, attempt=attempt.number, seconds=seconds)
        if isinstance(outcome, FailedAttempt):
            return replace(event, error=outcome.error)
        return replace(event, status=outcome.status, request_id=outcome.request_id)
