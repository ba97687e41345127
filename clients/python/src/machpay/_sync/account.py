"""`client.account`: the account that the credential belongs to.

Generated from `_async` by generate.py: edit it there.
"""

from typing import Unpack

from machpay._account import Account, account_from
from machpay._call import Call, CallOptions
from machpay._parsing import parse_object
from machpay._sync.transport import Transport


class Accounts:
    """Retrieve the account."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def retrieve(self, **options: Unpack[CallOptions]) -> Account:
        """Return the account. Members other than its id are in `.extra`."""
        return parse_object(self._transport.send(Call("GET", "/v1/account").using(options)), account_from)
