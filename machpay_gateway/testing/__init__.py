"""For the tests of guarded applications: callers without keys, and keys without a database.

`as_principal` says who calls, and needs no database, limiter or file. `create_key` makes a key of a gateway in memory,
for tests that want real credentials and limits.
"""

from machpay_gateway.testing.keys import create_key
from machpay_gateway.testing.principals import PrincipalOverride, as_principal

__all__ = ["PrincipalOverride", "as_principal", "create_key"]
