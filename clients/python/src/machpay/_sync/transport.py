"""Sends the calls of a client's resources with its credential, once more with a new one if it is refused.

Generated from `_async` by generate.py: edit it there.
"""

from dataclasses import dataclass, replace

from machpay._call import Call
from machpay._response import Response
from machpay._sync.credential_source import CredentialSource
from machpay._sync.sender import Sender
from machpay.errors import error_for, problem_in

_UNAUTHORIZED, _INVALID = 401, "invalid_credentials"


@dataclass(frozen=True, slots=True)
class Transport:
    """Sends the calls of resources."""

    sender: Sender
    credentials: CredentialSource

    def send(self, call: Call) -> Response:
        """Return the successful response to *call*. Raises APIStatusError for any other."""
        if call.needs_idempotency_key:
            call = replace(call, idempotency_key=self.sender.effects.new_idempotency_key())
        credential = self.credentials.current(self.sender)
        response = self.sender.send(call, credential.authorization)
        if _is_refused(response) and (other := self.credentials.replacement(credential, self.sender)):
            second = self.sender.send(call, other.authorization)
            response = replace(second, attempts=response.attempts + second.attempts)
        if not response.is_success:
            raise error_for(response)
        return response


def _is_refused(response: Response) -> bool:
    """Return whether *response* refuses the credential, which means that the request had no effect."""
    return response.status == _UNAUTHORIZED and problem_in(response).get("code") == _INVALID
