"""Sends the calls of a client's resources with its credential, and with another where that one has ended."""

from dataclasses import dataclass, replace

from machpay._async.bearer import AsyncBearer
from machpay._async.wire import AsyncWire
from machpay._call import Call
from machpay._response import Response
from machpay.errors import error_for, problem_in

_UNAUTHORIZED, _INVALID = 401, "invalid_credentials"


@dataclass(frozen=True, slots=True)
class AsyncTransport:
    """What resources send by."""

    wire: AsyncWire
    bearer: AsyncBearer

    async def send(self, call: Call) -> Response:
        """Return the answer to *call*, a success. Anything else is raised."""
        if call.needs_idempotency_key:
            call = replace(call, idempotency_key=self.wire.effects.new_idempotency_key())
        credential = await self.bearer.current(self.wire)
        response = await self.wire.send(call, credential.presented)
        if _is_refused(response) and (other := await self.bearer.in_place_of(credential, self.wire)):
            second = await self.wire.send(call, other.presented)
            response = replace(second, attempts=response.attempts + second.attempts)
        if not response.is_success:
            raise error_for(response)
        return response


def _is_refused(response: Response) -> bool:
    """Return whether it was the credential that *response* refuses, before anything was done."""
    return response.status == _UNAUTHORIZED and problem_in(response).get("code") == _INVALID
