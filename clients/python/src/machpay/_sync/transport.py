"""Sends the calls of a client's resources with its credential, and with another where that one has ended.

Generated from `_async` by generate.py: edit it there.
"""

from dataclasses import dataclass, replace

from machpay._call import Call
from machpay._response import Response
from machpay._sync.bearer import Bearer
from machpay._sync.wire import Wire
from machpay.errors import error_for, problem_in

_UNAUTHORIZED, _INVALID = 401, "invalid_credentials"


@dataclass(frozen=True, slots=True)
class Transport:
    """What resources send by."""

    wire: Wire
    bearer: Bearer

    def send(self, call: Call) -> Response:
        """Return the answer to *call*, a success. Anything else is raised."""
        if call.needs_idempotency_key:
            call = replace(call, idempotency_key=self.wire.effects.new_idempotency_key())
        credential = self.bearer.current(self.wire)
        response = self.wire.send(call, credential.presented)
        if _is_refused(response) and (other := self.bearer.in_place_of(credential, self.wire)):
            second = self.wire.send(call, other.presented)
            response = replace(second, attempts=response.attempts + second.attempts)
        if not response.is_success:
            raise error_for(response)
        return response


def _is_refused(response: Response) -> bool:
    """Return whether it was the credential that *response* refuses, before anything was done."""
    return response.status == _UNAUTHORIZED and problem_in(response).get("code") == _INVALID
