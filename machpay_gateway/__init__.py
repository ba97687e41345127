"""MachPay Gateway: who is calling an HTTP API, whether they may, and how much they may do.

The path of a request, in the order to read it:

1. `middleware.MachPayAuth` takes the ASGI connection.
2. `web.incoming.request_facts` reads what a decision needs: method, one canonical path, authorization, address.
3. `gate.Gate.decide` asks in order: `core.policy` for the route, `core.credential` for what was presented, the key
   cache (`stores.cache`) or token verifier (`keysets`) for who that is, `core.decision.admit` whether they may, the
   limiter (`limiters`) how much; `core.decision.conclude` says what follows.
4. Refused: `core.problem` has the answer's table, `web.problems` sends it.
5. Allowed: the application runs with `scope["machpay"]`; `web.headers` adds what is left of the quota.
6. The concurrency slot is given back when the response has ended, however it ended, and `telemetry.usage` counts it.

`assembly.Gateway` puts the parts together from `settings`. What is served beside the application stands in `server`:
the key API (`admin`) and, for apps that act for users, the authorization server (`oauth`, by what `grants` can do).
"""

from machpay_gateway.assembly import Gateway
from machpay_gateway.core.errors import ConfigurationError, GatewayError, InputError, Unavailable
from machpay_gateway.core.issuer import Issuer
from machpay_gateway.core.principal import Principal
from machpay_gateway.core.quota import Tier
from machpay_gateway.core.route import Route
from machpay_gateway.middleware import MachPayAuth

__all__ = [
    "ConfigurationError",
    "Gateway",
    "GatewayError",
    "InputError",
    "Issuer",
    "MachPayAuth",
    "Principal",
    "Route",
    "Tier",
    "Unavailable",
]
