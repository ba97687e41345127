"""`client.account`: the account that the credential belongs to."""

from machpay._account import Account, account_from
from machpay._async.transport import AsyncTransport
from machpay._call import Call
from machpay._reading import read_object


class AsyncAccounts:
    """Look at the account."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def retrieve(self) -> Account:
        """Return the account; its figures are in `.extra`."""
        return read_object(await self._transport.send(Call("GET", "/v1/account")), account_from)
