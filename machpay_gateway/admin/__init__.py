"""The key API: management of keys, apps and grants over HTTP, guarded by MachPayAuth like any other application.

`operations` is its one table: routing, access policy and the OpenAPI document are derived from it. An operation takes
an `AdminRequest`, calls the services, and returns a response or raises a `ProblemError`.
"""

from machpay_gateway.extras import require_extra

require_extra("api", "The key API")
