"""The forward-auth front: check request in, decision, response out. The client's request itself is not seen."""

from collections.abc import Sequence
from http import HTTPStatus
from time import perf_counter, time

from starlette.types import Receive, Scope, Send

from machpay_gateway.core.decision.decision import Allowed, Denied
from machpay_gateway.core.decision.identity_headers import identity_fields
from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.decision.problem import problem_for
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.network.forwarded import is_trusted_proxy
from machpay_gateway.core.usage.counters import PREFLIGHT_OUTCOME
from machpay_gateway.core.usage.outcome import RequestOutcome, outcome_of, outcome_of_refusal
from machpay_gateway.forward_auth.check_request import CheckRequest, check_path, parse_check_request
from machpay_gateway.forward_auth.dialect import Dialect, dialect_for
from machpay_gateway.forward_auth.leases import HeldLeases
from machpay_gateway.gateway import Gateway
from machpay_gateway.telemetry.own_requests import note_decision
from machpay_gateway.web.cors import Cors, cors_fields, only_value, preflight_headers
from machpay_gateway.web.headers import Headers, refusal_headers, response_headers
from machpay_gateway.web.path_reader import PathReader
from machpay_gateway.web.problems import send_problem
from machpay_gateway.web.request_facts import peer_of, request_facts


class ForwardAuth:
    """Responds to check requests of proxies. MachPayAuth must not guard it: the credentials are the client's."""

    def __init__(self, gateway: Gateway) -> None:
        """Decide with *gateway*, and hold concurrency slots for its `lease_seconds`."""
        self._gateway = gateway
        self._cors = Cors.of(gateway.settings.cors, gateway.settings.routes, gateway.policy)
        self._paths = PathReader(gateway.policy, gateway.settings.route_options(gateway.policy.routes))
        self._has_certified_routes = any(route.client_certificate == "required" for route in gateway.policy.routes)
        self.leases = HeldLeases(gateway.settings.forward_auth.lease_seconds)

    def handles(self, scope: Scope) -> bool:
        """Return whether *scope* is at a path for check requests, whether its peer is trusted or not."""
        return scope["type"] != "lifespan" and dialect_for(check_path(scope)) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to the check request in *scope*."""
        began_at = perf_counter()
        gateway = self._gateway
        dialect = dialect_for(check_path(scope)) if self._trusts(scope) else None
        if dialect is None:
            # A 404, as for an unknown path: any other response would let strangers test keys.
            facts = request_facts(scope, gateway.trust, gateway.request_ids)
            denied = Denied(Reason.ROUTE_NOT_FOUND, "only trusted proxies may send check requests")
            await self._refuse(scope, receive, send, facts, denied, began_at=began_at)
            return
        check = parse_check_request(scope, dialect, gateway.trust, gateway.request_ids, gateway.brand, self._paths)
        facts = check.facts
        decision = self._refusal(check) or await gateway.gate.decide(facts)
        gateway.steps.count_decision(began_at, None, perf_counter())
        cors = [] if self._cors is None else _cors_headers(self._cors, scope, facts)
        if isinstance(decision, Denied):
            await self._refuse(scope, receive, send, facts, decision, dialect=dialect, cors=cors, began_at=began_at)
            return
        note_decision(scope, facts, decision.principal, decision.route, _outcome_of(facts, decision, cors))
        await self._allow(send, facts, decision, cors, began_at=began_at)

    def _refusal(self, check: CheckRequest) -> Denied | None:
        """Return why *check* is refused for any caller, None when the gate decides."""
        if check.fault:
            return Denied(Reason.MALFORMED_REQUEST, check.fault, message=check.fault)
        if self._has_certified_routes and (route := self._certified_route(check.facts)) is not None:
            return Denied(Reason.CLIENT_CERTIFICATE_REQUIRED, "check requests do not have one", route)
        pages = self._gateway.page_guard
        if pages is None:
            return None
        # The proxy forwards to its own upstream, which does not have the gateway's pages.
        detail = pages.refusal_to_forward(check.facts.path, check.host)
        return None if detail is None else Denied(Reason.ROUTE_NOT_FOUND, detail)

    def _certified_route(self, facts: RequestFacts) -> Route | None:
        """Return the route of the client's request if it requires a client certificate."""
        route = self._gateway.policy.route_for(facts)
        return route if isinstance(route, Route) and route.client_certificate == "required" else None

    def _trusts(self, scope: Scope) -> bool:
        return scope["type"] == "http" and is_trusted_proxy(peer_of(scope), self._gateway.trust.proxies)

    async def _allow(
        self, send: Send, facts: RequestFacts, allowed: Allowed, cors: Headers, *, began_at: float
    ) -> None:
        principal, admission, route = allowed
        if admission is not None:
            self.leases.hold(admission.lease)
        headers: Headers = [
            (b"content-length", b"0"),
            (b"cache-control", b"no-store"),  # each request needs its own decision
            *response_headers(admission, facts.request_id, self._gateway.legacy_headers),
            *cors,
        ]
        if isinstance(principal, Principal):
            brand = self._gateway.brand
            headers += (
                (name.lower().encode(), value.encode())
                for name, value in identity_fields(principal, brand.header_prefix)
            )
            if (assertions := self._gateway.assertions) is not None:
                headers.append((brand.assertion_header.lower().encode(), assertions.token_for(principal, time())))
        try:
            await send({"type": "http.response.start", "status": int(HTTPStatus.OK), "headers": headers})
            await send({"type": "http.response.body", "body": b""})
        finally:
            outcome = _outcome_of(facts, allowed, cors)
            self._gateway.recorder.record(principal, route, outcome, int(HTTPStatus.OK), began_at)

    async def _refuse(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        facts: RequestFacts,
        denied: Denied,
        *,
        dialect: Dialect | None = None,
        cors: Sequence[tuple[bytes, bytes]] = (),
        began_at: float,
    ) -> None:
        self._gateway.refusals.add(facts, denied)
        note_decision(scope, facts, denied.principal, denied.route, outcome_of_refusal(denied))
        added = [*refusal_headers(denied, legacy=self._gateway.legacy_headers), *cors]
        challenge = self._gateway.trust.credentials.challenge
        problem = problem_for(denied, facts.request_id, self._gateway.brand, challenge)
        adapted = problem if dialect is None else dialect.adapt(problem)
        try:
            await send_problem(scope, receive, send, adapted, added)
        finally:
            outcome = outcome_of_refusal(denied)
            self._gateway.recorder.record(denied.principal, denied.route, outcome, problem.status, began_at)


def _outcome_of(facts: RequestFacts, allowed: Allowed, cors: Headers) -> RequestOutcome:
    is_preflight = facts.preflight_for is not None and cors
    return PREFLIGHT_OUTCOME if is_preflight else outcome_of(allowed.admission, allowed.route)


def _cors_headers(cors: Cors, scope: Scope, facts: RequestFacts) -> Headers:
    """Return the headers of CORS for the client's response, which the proxy may copy there."""
    if facts.preflight_for is not None:
        settings, _ = cors.announced_by(facts)
        return [] if settings is None else preflight_headers(settings, scope["headers"])
    settings = cors.for_request(facts.method, facts.path)
    return cors_fields(settings, only_value(scope["headers"], b"origin"))
