"""MachPay Gateway: who is calling an HTTP API, whether they may, and how much they may do.

The path of a request, in the order to read it:

1. `middleware.MachPayAuth` takes the ASGI connection.
2. `web.request_facts.request_facts` reads what a decision needs: method, one canonical path, authorization, address.
3. `gate.Gate.decide` asks in order, by the rules of `core.decision`: `policy` for the route, `credential` for what was
   presented, the key cache (`stores.cache`) or token verifier (`keysets`) for who that is, `decision.admit` whether
   they may, the limiter (`limiters`) how much; `decision.conclude` says what follows.
4. Refused: `core.decision.problem` has the answer's table, `web.problems` sends it.
5. Allowed: the application runs with `scope["machpay"]`; `web.headers` adds what is left of the quota.
6. The concurrency slot is given back when the response has ended, however it ended, and `telemetry.usage` counts it.

`assembly.Gateway` puts the parts together from `settings`. What is served beside the application stands in `server`:
the key API (`admin`), the Console, and the authorization server (`oauth`). All three call the use cases in `services`.
"""

from machpay_gateway.assembly import ConfiguredGateway as Gateway
from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import ConfigurationError, GatewayError, InputError, Unavailable
from machpay_gateway.core.jose.issuer import Issuer
from machpay_gateway.core.limits.rate import Tier
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
