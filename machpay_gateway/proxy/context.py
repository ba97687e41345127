"""What all connections of one process share: the gate, the parsers, the pools, and where requests are recorded."""

import asyncio
import logging
import ssl
import sys
import time
from collections.abc import Coroutine
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.policy import PREFLIGHT
from machpay_gateway.core.decision.principal import Anonymous, Principal
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.network.client_certificate import certificate_fields
from machpay_gateway.core.network.forwarded import forwarding_chain, is_trusted_proxy
from machpay_gateway.core.usage.outcome import RequestOutcome
from machpay_gateway.gateway import Gateway
from machpay_gateway.log_throttle import LogThrottle
from machpay_gateway.proxy.charging import Charging
from machpay_gateway.proxy.downstream import ClientStream
from machpay_gateway.proxy.framing import FramedRequest, HeadLimits
from machpay_gateway.proxy.header_fields import request_fields
from machpay_gateway.proxy.readers import RequestReader
from machpay_gateway.proxy.route_plan import RoutePlan
from machpay_gateway.proxy.routing import ControlPlane, UpstreamRouter
from machpay_gateway.proxy.upstream_request import Hops
from machpay_gateway.telemetry.steps import Steps
from machpay_gateway.web.cors import Cors
from machpay_gateway.web.path_reader import PathReader
from machpay_gateway.web.request_facts import accepted_request_id, preflight_method

if TYPE_CHECKING:
    from machpay_gateway.telemetry.traces import Traces

logger = logging.getLogger("machpay_gateway")

_new = tuple.__new__  # half the cost of a NamedTuple's own constructor


class RequestLog(Protocol):
    """Where requests are logged: `AccessLog`, or a list in tests."""

    def add(  # noqa: PLR0913, PLR0917 - as the access log has it
        self,
        facts: RequestFacts,
        principal: Principal | Anonymous | None,
        route: Route | None,
        outcome: RequestOutcome,
        status: int,
        steps: Steps,
        sent_bytes: int,
        trace_id: bytes,
        forwarded_path: str | None = None,
    ) -> None:
        """Log a request that has ended, with the times in *steps*; *trace_id* is empty if it has no trace.

        *forwarded_path* is what the upstream got, if that is not the authorized path.
        """


class ProxyContext:
    """The shared parts of a *gateway*'s proxy, compiled once."""

    def __init__(
        self, gateway: Gateway, *, control_plane: ControlPlane | None = None, access_log: RequestLog | None = None
    ) -> None:
        settings = gateway.settings
        self.loop = asyncio.get_running_loop()
        self.gateway = gateway
        self.gate = gateway.gate
        self.legacy_headers = gateway.legacy_headers
        traced, pass_headers = gateway.traces is not None, settings.proxy.pass_headers
        trust = gateway.trust
        route_options = self._route_options = settings.route_options(self.gate.policy.routes)
        fields = request_fields(
            trust.header,
            traced=traced,
            pass_headers=pass_headers,
            brand=gateway.brand,
            credentials=trust.credentials,
            paths=PathReader(
                self.gate.policy,
                route_options,
                check_prefix=None if control_plane is None else control_plane.forward_auth_prefix,
            ),
        )
        self.challenge = trust.credentials.challenge
        self.head_seconds = settings.server.head_seconds
        self.keepalive_seconds = settings.server.keepalive_seconds
        self.takes_http2 = settings.server.http2
        self.options = settings.proxy
        self._plans: dict[str, RoutePlan] = {}  # by a route's match
        # The control plane, which gets a credential, must read it in the header that replaces its own.
        replaces = trust.credentials.settings.takes_authorization and not any(
            options.forward_credentials for options in route_options.all
        )
        most = HeadLimits(settings.server.max_head_bytes, settings.server.max_header_lines)
        self.requests = RequestReader(fields, most, replaces_headers=replaces)
        self.smallest_body_limit = min(
            (options.max_body_bytes for options in route_options.all if options.max_body_bytes), default=sys.maxsize
        )
        self.takes_certificates = settings.server.client_ca is not None
        self.has_certified_routes = any(route.client_certificate == "required" for route in settings.routes)
        self.cors = Cors.of(settings.cors, settings.routes, self.gate.policy)
        self.router = UpstreamRouter(
            settings.all_services, control_plane, route_options, with_cors=self.cors is not None
        )
        self._preflight_plan = RoutePlan(PREFLIGHT, route_options.default, self.router.destinations_of(None))
        self.has_control_plane = control_plane is not None
        self.page_guard = gateway.page_guard
        self.has_assertions = gateway.assertions is not None
        self.traces: Traces | None = gateway.traces
        self.access_log = access_log
        self.steps = gateway.steps
        self.charging = Charging()
        self.recorder = gateway.recorder
        self.refusals = gateway.refusals
        self.throttle = LogThrottle(logger)
        self._tasks: set[asyncio.Task[None]] = set()

    def is_trusted_proxy(self, peer: str) -> bool:
        """Return whether *peer* is a trusted proxy."""
        return is_trusted_proxy(peer, self.gateway.trust.proxies)

    def next_request_id(self) -> bytes:
        """Return a new request id."""
        return next(self.gateway.request_ids)

    def facts_of(self, client: ClientStream, request: FramedRequest) -> tuple[RequestFacts, Hops]:
        """Return the facts that a decision needs about *request*, and the addresses from its client to our peer."""
        head, authorization = request
        address, hops = client.address, client.hops
        request_id = None
        if client.is_trusted:
            trust = self.gateway.trust
            if head.forwarded:
                hops = forwarding_chain(client.host, head.forwarded, trust.proxies, trust.header)
                address = hops[0]
            if head.request_id:
                request_id = accepted_request_id(head.request_id, client.host, trust.proxies)
        elif head.forwarded:
            self.gateway.trust.ignored.note(client.host, self.gateway.trust.header)
        preflight = None
        if head.preflight_method is not None and not authorization:
            preflight = preflight_method(head.name, head.origin, head.preflight_method, has_body=head.has_body)
        if request_id is None:
            request_id = next(self.gateway.request_ids)
        return _new(
            RequestFacts, (head.name, head.path, authorization, address, request_id, preflight, head.proof)
        ), hops

    def assertion_for(self, principal: Principal | Anonymous | None) -> bytes:
        """Return a signed statement about *principal*, b"" if nobody is authenticated."""
        assertions = self.gateway.assertions
        if assertions is None or not isinstance(principal, Principal):
            return b""
        return assertions.token_for(principal, time.time())

    def plan_for(self, route: Route) -> RoutePlan:
        """Return how requests of *route* are forwarded."""
        if route is PREFLIGHT:  # by its match it could be a route of the settings
            return self._preflight_plan
        if (plan := self._plans.get(route.match)) is None:
            destinations = self.router.destinations_of(route.service)
            plan = self._plans[route.match] = RoutePlan(route, self._route_options.of(route), destinations)
        return plan

    def announced_plan(self, facts: RequestFacts) -> RoutePlan | None:
        """Return how the request that a CORS preflight announces is forwarded, which the preflight follows."""
        actual = self.gate.policy.rule(facts.preflight_for or "", facts.path or "")
        return self.plan_for(actual) if isinstance(actual, Route) else None

    def certificate_lines(self, tls: ssl.SSLObject) -> bytes:
        """Return the lines of the identity headers about the certificate that the client has presented, if it has."""
        der = tls.getpeercert(binary_form=True)
        if der is None:
            return b""
        fields = certificate_fields(tls.getpeercert() or {}, der, self.gateway.brand.header_prefix)
        return b"".join(f"{name}: {value}\r\n".encode() for name, value in fields)

    def route_of_uncertified(self, facts: RequestFacts) -> Route | None:
        """Return the request's route if it requires a client certificate. A preflight has none."""
        route = self.gate.policy.route_for(facts)
        if not isinstance(route, Route) or facts.preflight_for is not None:
            return None
        return route if route.client_certificate == "required" else None

    def route_of_oversized(self, facts: RequestFacts, length: int) -> Route | None:
        """Return the request's route if it takes no body of *length* bytes."""
        route = self.gate.policy.route_for(facts)
        return route if isinstance(route, Route) and 0 < self.plan_for(route).options.max_body_bytes < length else None

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run *work* in a task."""
        task = self.loop.create_task(work)
        self._tasks.add(task)  # the loop itself holds only a weak reference
        task.add_done_callback(self._tasks.discard)

    def record_fault(
        self, address: int | None, began_at: float, request_id: bytes, denied: Denied, status: int
    ) -> None:
        """Log and count a message from *address* that is not a valid request."""
        facts = RequestFacts("", None, (), address, request_id)
        self.refusals.add(facts, denied)
        self.recorder.record(None, None, denied.reason, status, began_at)
        if self.access_log is not None:
            steps = Steps(began_at, None, None, None, perf_counter())
            self.access_log.add(facts, None, None, denied.reason, status, steps, 0, b"")

    async def close(self) -> None:
        """Close idle upstream connections, and cancel what runs in tasks."""
        self.router.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
