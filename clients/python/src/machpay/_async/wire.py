"""Sends calls: one attempt after the other, until there is an answer or no sense in going on."""

import asyncio
import logging
from dataclasses import dataclass, field, replace

import httpx2

from machpay._call import Call, headers_for
from machpay._credential import Presented
from machpay._effects import AsyncSleep, Effects
from machpay._options import CONNECT_SECONDS, Options
from machpay._response import Response
from machpay._retry import Lost, Outcome, lost, wait_before_retry

_log = logging.getLogger("machpay")
_LEAST_SECONDS = 0.001  # a sleep may overrun what was left, and a timeout is never negative


@dataclass(frozen=True, slots=True)
class AsyncWire:
    """Knows how to send, and nothing of what is sent, nor for whom."""

    http: httpx2.AsyncClient = field(repr=False)
    options: Options
    effects: Effects = field(default_factory=Effects, repr=False)
    sleep: AsyncSleep = field(default=asyncio.sleep, repr=False)

    async def send(self, call: Call, presented: Presented) -> Response:
        """Return the last answer to *call*, whatever its status. That there is none is raised."""
        began = self.effects.monotonic()
        received_at: float | None = None  # as soon as it may have been
        retries = 0
        while True:
            left = began + self.options.deadline - self.effects.monotonic()
            seconds = min(self.options.timeout, max(left, _LEAST_SECONDS))
            sent_at = self.effects.monotonic()
            outcome = await self._attempt(call, presented, retries + 1, seconds)
            if isinstance(outcome, Response) and outcome.is_success:
                return outcome
            if received_at is None and not (isinstance(outcome, Lost) and outcome.is_unsent):
                received_at = sent_at
            now = self.effects.monotonic()
            wait = wait_before_retry(
                call,
                outcome,
                self.options,
                retries=retries,
                elapsed=now - began,
                draw=self.effects.draw(),
                received_for=None if received_at is None else now - received_at,
            )
            if wait is None:
                break
            _log.debug("%s %s is tried again in %.3f s", call.method, call.path, wait)
            await self.sleep(wait)
            retries += 1
        if isinstance(outcome, Lost):
            raise outcome.error from outcome.cause
        return outcome

    async def _attempt(self, call: Call, presented: Presented, number: int, seconds: float) -> Outcome:
        ends = self.effects.monotonic() + seconds
        address = self.options.base_url if call.at == "base_url" else self.options.auth_url
        request = self.http.build_request(
            call.method,
            address + call.path,
            params=call.query or None,
            content=call.body,
            headers=headers_for(call, presented),
            timeout=httpx2.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds)),
        )
        if presented.authorization is None:
            request.headers.pop("Authorization", None)  # a given http_client may bring one along
        try:
            # No `auth`, no redirects: a secret goes where we are told to send it, whatever a given http_client does.
            answer = await self.http.send(request, stream=True, auth=None, follow_redirects=False)
            try:
                body = await self._body(answer, ends)
            finally:
                await answer.aclose()
        except httpx2.RequestError as exc:
            outcome = lost(call, address, exc)
            _log.debug("%s %s got no answer (attempt %d): %s", call.method, call.path, number, type(exc).__name__)
            return outcome
        response = Response(answer.status_code, answer.headers, body, number, self.effects.now())
        if not response.is_success:
            response = replace(response, body=presented.hidden_in(body))
        told = (call.method, call.path, response.status, number, response.request_id)
        _log.debug("%s %s was answered with %d (attempt %d, request %s)", *told)
        return response

    async def _body(self, answer: httpx2.Response, ends: float) -> bytes:
        """Return the body. A server that drips it keeps within each read's time, and not within the whole one."""
        body = bytearray()
        async for chunk in answer.aiter_bytes():
            body += chunk
            if self.effects.monotonic() > ends:
                raise httpx2.ReadTimeout("the body does not end", request=answer.request)
        return bytes(body)
