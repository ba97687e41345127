"""`client.account`: the account that the credential belongs to."""

from typing import Unpack

from machpay._account import Account, account_from
from machpay._async.transport import AsyncTransport
from machpay._call import Call, CallOptions
from machpay._parsing import parse_object


class AsyncAccounts:
    """Retrieve the account."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def retrieve(self, **options: Unpack[CallOptions]) -> Account:
        """Return the account. Members other than its id are in `.extra`."""
        return parse_object(await self._transport.send(Call("GET", "/v1/account").using(options)), account_from)
