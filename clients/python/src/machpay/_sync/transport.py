"""Sends the calls of a client's resources with its credential, once more with a new one if it is refused.

Generated from `_async` by generate.py: edit it there.
"""

from dataclasses import dataclass, field, replace

from machpay._call import Call
from machpay._credential import Authorization, Credential
from machpay._dpop import DPoPKey
from machpay._response import Response
from machpay._sync.credential_source import CredentialSource
from machpay._sync.sender import Sender
from machpay._sync.stream import Stream
from machpay.errors import error_for, problem_in

_UNAUTHORIZED, _INVALID = 401, "invalid_credentials"


@dataclass(frozen=True, slots=True)
class Transport:
    """Sends the calls of resources."""

    sender: Sender
    credentials: CredentialSource
    dpop_key: DPoPKey | None = field(default=None, repr=False)

    def send(self, call: Call) -> Response:
        """Return the successful response to *call*. Raises APIStatusError for any other."""
        call = self._with_idempotency_key(call)
        credential = self.credentials.current(self.sender)
        response = self.sender.send(call, self._authorization(credential))
        if _is_refused(response) and (other := self.credentials.replacement(credential, self.sender)):
            second = self.sender.send(call, self._authorization(other))
            response = replace(second, attempts=response.attempts + second.attempts)
        if not response.is_success:
            raise error_for(response)
        return response

    def open(self, call: Call) -> Stream:
        """Return the stream of the successful response to *call*. Raises APIStatusError for any other."""
        call = self._with_idempotency_key(call)
        credential = self.credentials.current(self.sender)
        opened = self.sender.open(call, self._authorization(credential))
        if (
            isinstance(opened, Response)
            and _is_refused(opened)
            and (other := self.credentials.replacement(credential, self.sender))
        ):
            opened = self.sender.open(call, self._authorization(other))
        if isinstance(opened, Response):
            raise error_for(opened)
        return opened

    def _with_idempotency_key(self, call: Call) -> Call:
        if not (call.needs_idempotency_key and call.is_deduplicated):
            return call
        return replace(call, idempotency_key=self.sender.effects.new_idempotency_key())

    def _authorization(self, credential: Credential) -> Authorization:
        if self.dpop_key is None:
            return credential.authorization
        return Authorization(f"DPoP {credential.value}", (credential.value,), self.dpop_key, credential.value)


def _is_refused(response: Response) -> bool:
    """Return whether *response* refuses the credential, which means that the request had no effect."""
    return response.status == _UNAUTHORIZED and problem_in(response).get("code") == _INVALID
