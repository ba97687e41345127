"""`client.account`: the account that the credential belongs to.

Generated from `_async` by generate.py: edit it there.
"""

from machpay._account import Account, account_from
from machpay._call import Call
from machpay._parsing import parse_object
from machpay._sync.transport import Transport


class Accounts:
    """Retrieve the account."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def retrieve(self) -> Account:
        """Return the account. Members other than its id are in `.extra`."""
        return parse_object(self._transport.send(Call("GET", "/v1/account")), account_from)
