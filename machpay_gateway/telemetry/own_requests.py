"""What the control plane decides about requests that the proxy of the same process forwards to it.

The proxy writes the access log and ends the trace of such a request, but does not decide it: so it hands on a name, and
the control plane notes by that name what was decided, for whom, by which route, and with what outcome. What is decided
by a check request of another proxy is the request of that proxy's client.
"""

from itertools import count

from starlette.types import Scope

from machpay_gateway.core.decision.principal import Anonymous, Principal
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.usage.counters import ALLOWED
from machpay_gateway.core.usage.outcome import RequestOutcome

OWN_REQUEST_HEADER = b"x-machpay-request"
_SCOPE_KEY = "machpay_own_request"


class OwnRequest:
    """A request to the control plane. Mutable: all but its *name* is noted once it is decided."""

    __slots__ = ("facts", "name", "outcome", "principal", "route")

    def __init__(self, name: bytes) -> None:
        """Name a request that is not decided yet."""
        self.name = name
        self.facts: RequestFacts | None = None
        self.principal: Principal | Anonymous | None = None
        self.route: Route | None = None
        self.outcome: RequestOutcome = ALLOWED


class OwnRequests:
    """The requests to the control plane that are in progress in this process."""

    def __init__(self) -> None:
        """Begin with none."""
        self._names = count(1)
        self._by_name: dict[bytes, OwnRequest] = {}

    def begin(self) -> OwnRequest:
        """Return a new request, which the proxy forwards with its name in `OWN_REQUEST_HEADER`."""
        request = OwnRequest(b"%d" % next(self._names))
        self._by_name[request.name] = request
        return request

    def end(self, request: OwnRequest) -> None:
        """Forget *request*, which the proxy has logged."""
        self._by_name.pop(request.name, None)

    def mark(self, scope: Scope, name: bytes) -> None:
        """Put the request with this *name* into *scope*, for `note_decision`."""
        if (request := self._by_name.get(name)) is not None:  # else its client is gone already
            scope[_SCOPE_KEY] = request


def note_decision(
    scope: Scope,
    facts: RequestFacts,
    principal: Principal | Anonymous | None,
    route: Route | None,
    outcome: RequestOutcome,
) -> None:
    """Note how the request in *scope*, with these *facts*, was decided, if the proxy of this process forwarded it."""
    request: OwnRequest | None = scope.get(_SCOPE_KEY)
    if request is not None:
        request.facts, request.principal, request.route, request.outcome = facts, principal, route, outcome
