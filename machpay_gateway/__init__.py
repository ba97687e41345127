"""MachPay Gateway: who is calling an HTTP API, whether they may, and how much they may do.

The path of a request, in the order to read it:

1. `middleware.MachPayAuth` takes the ASGI connection.
2. `web.request_facts.request_facts` extracts what a decision needs: method, canonical path, authorization, address.
3. `gate.Gate.decide` applies the rules of `core.decision` in order: `policy` finds the route, `credential` parses what
   was presented, the key cache (`stores.cache`) or token verifier (`keysets`) identifies the principal,
   `decision.admit` checks permissions, the limiter (`limiters`) admits, and `decision.conclude` returns the decision.
4. Refused: `core.decision.problem` has the table of responses, `web.problems` sends one.
5. Allowed: the application runs with `scope["machpay"]`; `web.headers` adds the remaining quota.
6. The concurrency slot is released when the response ends, in whatever way, and `telemetry.usage` counts the request.

`assembly` builds a `gateway.Gateway`, the container of all components, from `settings`. `server` serves the key API
(`admin`), the Console and the authorization server (`oauth`) beside the application. They call the use cases in
`services`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from machpay_gateway.assembly import ConfiguredGateway as Gateway
    from machpay_gateway.core.decision.decision import Refusal
    from machpay_gateway.core.decision.hooks import Identity, cached
    from machpay_gateway.core.decision.principal import Principal
    from machpay_gateway.core.decision.reason import Reason
    from machpay_gateway.core.decision.request_facts import RequestFacts
    from machpay_gateway.core.decision.route import Route
    from machpay_gateway.core.errors import ConfigurationError, GatewayError, InputError, Unavailable
    from machpay_gateway.core.jose.issuer import Issuer
    from machpay_gateway.core.limits.rate import Tier
    from machpay_gateway.middleware import MachPayAuth

__all__ = [
    "ConfigurationError",
    "Gateway",
    "GatewayError",
    "Identity",
    "InputError",
    "Issuer",
    "MachPayAuth",
    "Principal",
    "Reason",
    "Refusal",
    "RequestFacts",
    "Route",
    "Tier",
    "Unavailable",
    "cached",
]

# Imported when they are used: the command line and the supervisor need neither a gateway nor a middleware, and start
# in half of the time.
_PUBLIC = {
    "ConfigurationError": ("core.errors", "ConfigurationError"),
    "Gateway": ("assembly", "ConfiguredGateway"),
    "GatewayError": ("core.errors", "GatewayError"),
    "Identity": ("core.decision.hooks", "Identity"),
    "InputError": ("core.errors", "InputError"),
    "Issuer": ("core.jose.issuer", "Issuer"),
    "MachPayAuth": ("middleware", "MachPayAuth"),
    "Principal": ("core.decision.principal", "Principal"),
    "Reason": ("core.decision.reason", "Reason"),
    "Refusal": ("core.decision.decision", "Refusal"),
    "RequestFacts": ("core.decision.request_facts", "RequestFacts"),
    "Route": ("core.decision.route", "Route"),
    "Tier": ("core.limits.rate", "Tier"),
    "Unavailable": ("core.errors", "Unavailable"),
    "cached": ("core.decision.hooks", "cached"),
}


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    value: object = getattr(import_module(f"{__name__}.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
