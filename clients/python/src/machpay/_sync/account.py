"""`client.account`: the account that the credential belongs to.

Generated from `_async` by generate.py: edit it there.
"""

from machpay._account import Account, account_from
from machpay._call import Call
from machpay._reading import read_object
from machpay._sync.transport import Transport


class Accounts:
    """Look at the account."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def retrieve(self) -> Account:
        """Return the account; its figures are in `.extra`."""
        return read_object(self._transport.send(Call("GET", "/v1/account")), account_from)
