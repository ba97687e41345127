"""`client.account`: the account that the credential belongs to."""

from machpay._account import Account, account_from
from machpay._async.transport import AsyncTransport
from machpay._call import Call
from machpay._parsing import parse_object


class AsyncAccounts:
    """Retrieve the account."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def retrieve(self) -> Account:
        """Return the account. Members other than its id are in `.extra`."""
        return parse_object(await self._transport.send(Call("GET", "/v1/account")), account_from)
