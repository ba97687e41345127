"""Sends the calls of a client's resources with its credential, once more with a new one if it is refused."""

from dataclasses import dataclass, replace

from machpay._async.credential_source import AsyncCredentialSource
from machpay._async.sender import AsyncSender
from machpay._call import Call
from machpay._response import Response
from machpay.errors import error_for, problem_in

_UNAUTHORIZED, _INVALID = 401, "invalid_credentials"


@dataclass(frozen=True, slots=True)
class AsyncTransport:
    """Sends the calls of resources."""

    sender: AsyncSender
    credentials: AsyncCredentialSource

    async def send(self, call: Call) -> Response:
        """Return the successful response to *call*. Raises APIStatusError for any other."""
        if call.needs_idempotency_key:
            call = replace(call, idempotency_key=self.sender.effects.new_idempotency_key())
        credential = await self.credentials.current(self.sender)
        response = await self.sender.send(call, credential.authorization)
        if _is_refused(response) and (other := await self.credentials.replacement(credential, self.sender)):
            second = await self.sender.send(call, other.authorization)
            response = replace(second, attempts=response.attempts + second.attempts)
        if not response.is_success:
            raise error_for(response)
        return response


def _is_refused(response: Response) -> bool:
    """Return whether *response* refuses the credential, which means that the request had no effect."""
    return response.status == _UNAUTHORIZED and problem_in(response).get("code") == _INVALID
