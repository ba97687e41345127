"""MachPayAuth: ASGI in, decision, ASGI out."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from time import perf_counter
from typing import TYPE_CHECKING, NoReturn, Unpack

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from machpay_gateway.assembly import ConfiguredGateway
from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.principal import ANONYMOUS
from machpay_gateway.core.decision.problem import problem_for
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.limits.admission import UNCOUNTED, Lease, abandon
from machpay_gateway.core.network.forwarded import is_trusted_proxy
from machpay_gateway.core.usage.counters import ALLOWED, PREFLIGHT_OUTCOME
from machpay_gateway.core.usage.outcome import RequestOutcome, outcome_of, outcome_of_refusal
from machpay_gateway.gate import Gate, PendingAdmission, PendingIdentity
from machpay_gateway.gateway import Gateway
from machpay_gateway.problem_pages import PROBLEM_ROUTE, problem_pages
from machpay_gateway.settings import Options
from machpay_gateway.settings.model import check_certified_routes
from machpay_gateway.telemetry.own_requests import note_decision
from machpay_gateway.web.application_scopes import ApplicationScopes, may_refuse
from machpay_gateway.web.cors import Cors, cors_fields, only_value, preflight_headers, sending_cors
from machpay_gateway.web.headers import Headers, refusal_headers, response_headers
from machpay_gateway.web.lifespan import run_lifespan
from machpay_gateway.web.problems import send_problem
from machpay_gateway.web.request_facts import (
    Trust,
    method_of,
    path_of,
    peer_of,
    request_facts,
    request_facts_with_query,
    with_protocols,
    without_protocols,
)
from machpay_gateway.web.streams import EVENT_STREAM, OpenStream, StreamWatch, receive_until_end

if TYPE_CHECKING:
    from machpay_gateway.core.decision.route import Route
    from machpay_gateway.telemetry.traces import Record, Traces

logger = logging.getLogger("machpay_gateway")
_Detour = Callable[[Scope, Receive, Send], Awaitable[None]]

_STARTS = {"http.response.start", "websocket.accept", "websocket.http.response.start"}
_ENDS = {"http.response.body", "websocket.close"}
# The recorded status when the application sends none. Servers respond 403 to a handshake that was not accepted and 500
# to an exception; 499 is our own, for a client that disconnected before a response.
_ACCEPTED, _NOT_ACCEPTED, _FAILED, _CLIENT_GONE = 101, 403, 500, 499


class MachPayAuth:
    """Pure ASGI middleware that passes a request to *app* only if its caller is authorized.

    `app.add_middleware(MachPayAuth)` reads the environment and `machpay.toml`; every setting is also an argument. The
    application finds the caller in `scope["machpay"]`, and as Starlette's `request.user` and `request.auth`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        gateway: Gateway | None = None,
        trust: Trust | None = None,
        **options: Unpack[Options],
    ) -> None:
        """Guard *app* with *gateway*, or with one built from *options*, the environment and `machpay.toml`.

        *trust* replaces the trusted proxies of the settings.

        Raises ConfigurationError for an invalid setting; inside an event loop, the startup fails with it instead.
        """
        if gateway is not None and options:
            raise ConfigurationError(f"MachPayAuth takes a gateway or settings, not both: drop {', '.join(options)}")
        self.app = app
        self.config_error: ConfigurationError | None = None
        self._detour: _Detour | None = None  # serves HTTP requests instead, where the settings need more than usual
        # By the application's dependency, until its response begins; None where none can refuse.
        self._refusals: dict[int, tuple[RequestFacts, Denied]] | None = {} if may_refuse() else None
        try:
            gateway = gateway or ConfiguredGateway(**options)
            self.trust = _trust_of(gateway, trust)
            is_in_headers = self.trust.credentials.query is None
            self._facts_of = request_facts if is_in_headers else request_facts_with_query
            self._problem_pages = problem_pages(gateway.brand)
            self.use_gateway(gateway)
            self.gateway.scopes.include(ApplicationScopes(app).names)
            self._warn()
        except ConfigurationError as exc:
            if not _inside_event_loop():
                raise
            # Starlette builds its middleware within the server's lifespan call, where uvicorn takes an exception for an
            # application without lifespan and serves it. Only the lifespan handler can report that the startup failed.
            self.config_error = exc
            self._detour = partial(_fail, exc)

    def _warn(self) -> None:
        """Log what is set and nobody serves here. Raises ConfigurationError for what must not go unchecked."""
        check_certified_routes(self.gateway.settings)
        for warning in self.gateway.settings.unserved_by_middleware:
            logger.warning("%s", warning)

    def use_gateway(self, gateway: Gateway) -> None:
        """Decide by *gateway* from the next request on."""
        self.gateway = gateway
        self._gate = _gate_for(gateway, self.app)
        self._streams = StreamWatch(self._gate.recheck)
        self._detour = None
        if (cors := Cors.of(gateway.settings.cors, gateway.settings.routes, gateway.policy)) is not None:
            # A copy without a detour: who has CORS off pays nothing for it.
            self._detour = partial(self._serve_with_cors, cors, partial(MachPayAuth.__call__, copy(self)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: C901, PLR0912, PLR0915 - one straight line
        """Serve one connection of any ASGI type."""
        kind = scope["type"]
        if kind != "http" or self._detour is not None:
            if kind != "websocket" or self.config_error is not None:
                await self._serve_other(scope, receive, send)
                return
            scope = with_protocols(scope)
        began_at = perf_counter()
        gateway = self.gateway
        facts = self._facts_of(scope, self.trust, gateway.request_ids)
        gate = self._gate
        decision = gate.decide_nowait(facts)
        admission_began_at: float | None = None
        if isinstance(decision, PendingAdmission):
            # Awaited here, as in `Gate.decide`: each coroutine in between would cost 1 % of the throughput.
            pending, admission_began_at = decision, perf_counter()
            try:
                decision = gate.apply_answer(pending, await pending.answer)
            except asyncio.CancelledError:
                abandon(pending.answer)
                raise
        if isinstance(decision, PendingIdentity):
            decision, admission_began_at = (
                await gate.resolve(decision),
                None,
            )  # the gate measures the limiter itself
        decided_at = perf_counter()
        gateway.steps.count_decision(began_at, admission_began_at, decided_at)
        serve: ASGIApp = self.app
        record: Record = gateway.recorder.record
        if gateway.traces is not None:
            serve, record = self._traced(
                gateway.traces, scope, facts, decision.route, began_at, admission_began_at, decided_at
            )
        if isinstance(decision, Denied):
            await self._refuse(scope, receive, send, facts, decision, record=record, began_at=began_at)
            return
        principal, admission, route = decision
        caller = None if principal is ANONYMOUS else principal
        if route is PROBLEM_ROUTE:
            serve = self._problem_pages
        held: Lease | None = None
        outcome: RequestOutcome = ALLOWED
        if admission is not None:
            held = admission.lease
            if admission.is_shadow_limited:
                outcome = outcome_of(admission, route)
        status = None
        began: float | None = began_at  # None once the request is recorded
        added = response_headers(admission, facts.request_id, gateway.legacy_headers)
        streams = self._streams
        stream: OpenStream | None = None

        def send_response(message: Message) -> Awaitable[None]:  # noqa: C901, PLR0912 - one straight line
            """Send *message* with our headers added. Not a coroutine: that would cost 2 % of the throughput."""
            nonlocal began, held, send, status, stream
            step = message["type"]
            opens = False
            if step == "http.response.body":
                opens = message.get("more_body", False)
            elif step in _STARTS:
                status = message.get("status")
                headers = message.get("headers", ())
                if status is None:
                    opens = True
                    if began is not None:
                        # An accepted handshake is a complete response; the WebSocket may last for days.
                        record(principal, route, outcome, _ACCEPTED, began)
                        began = None
                else:
                    for name, value in headers:  # server-sent events may pause for long after their head
                        if name == b"content-type":
                            opens = value[:1] == b"t" and value[:17] == EVENT_STREAM
                            break
                message = dict(message, headers=[*headers, *added])
                if not opens:
                    return send(message)
            elif step not in _ENDS:
                return send(message)
            if opens:
                if stream is None and held is not None and caller is not None:
                    stream = OpenStream(message, facts=facts, route=route, lease=held, send=send)
                    streams.add(stream, began)
                    held, send = None, stream.send
                return send(message)
            # The end of the response releases the lease: the application may have background tasks after it.
            if held is not None:
                held.release()
                held = None
            elif stream is not None:
                stream.finish()
            if began is not None:
                record(principal, route, outcome, status or _NOT_ACCEPTED, began)
                began = None
            return send(message)

        refusals, send_to_client = self._refusals, send_response
        if refusals is not None:

            def send_unless_refused(
                message: Message,
                scope: Scope = scope,
                refusals: dict[int, tuple[RequestFacts, Denied]] = refusals,
            ) -> Awaitable[None]:
                """Send *message*, or the refusal by which the application's own dependency has ended the request."""
                nonlocal began, held, send
                if id(facts) not in refusals or began is None:
                    return send_response(message)
                (_, denied), send_on, refused_at = refusals.pop(id(facts)), send, began
                send, began = _discard, None  # the rest of the response that the application has begun
                if held is not None:
                    held.release()
                    held = None
                denied = replace(denied, route=route)
                return self._refuse(scope, _connected, send_on, facts, denied, record=record, began_at=refused_at)

            send_to_client = send_unless_refused

        default_status = _CLIENT_GONE
        if kind == "websocket":
            receive = receive_until_end(receive, lambda: stream)
            if self.trust.credentials.settings.subprotocol:
                scope = without_protocols(scope)
        try:
            # `dict(scope, …)` is a third faster than `{**scope, …}`.
            passed = dict(
                scope,
                machpay=caller,
                machpay_facts=facts,
                machpay_admission=admission or UNCOUNTED,
                auth=principal,
                user=principal,
            )
            if refusals is not None:
                passed["machpay_refusals"] = refusals
            await serve(passed, receive, send_to_client)
        except asyncio.CancelledError as exc:
            if stream is None or not stream.explains(exc):
                raise
        except Exception as exc:
            if stream is None or not stream.explains(exc):
                default_status = _FAILED
                if status is None and kind == "http":
                    _add_to_error_response(scope, added)
                raise
        finally:
            if stream is not None:
                streams.discard(stream)
            if held is not None:  # after an error, a cancellation or a disconnect; releasing awaits nothing
                held.release()
            if refusals is not None:
                refusals.pop(id(facts), None)
            if began is not None:
                record(principal, route, outcome, status or default_status, began)

    async def _serve_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._detour is not None and (scope["type"] == "http" or self.config_error is not None):
            await self._detour(scope, receive, send)
        elif scope["type"] == "lifespan":
            await run_lifespan(self.app, scope, receive, send, self.gateway.lifecycle)
        else:
            await self.app(scope, receive, send)

    async def _serve_with_cors(self, cors: Cors, guarded: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or serve *guarded*: whoever responds, the response has the headers of CORS."""
        origin, method = only_value(scope["headers"], b"origin"), method_of(scope)
        if method == "OPTIONS" and origin:
            began_at = perf_counter()
            facts = self._facts_of(scope, self.trust, self.gateway.request_ids)
            settings, route = cors.announced_by(facts)
            if settings is not None:
                headers = [*preflight_headers(settings, scope["headers"]), (b"x-request-id", facts.request_id)]
                await self._answer_preflight(scope, send, facts, route, headers, began_at=began_at)
                return
        settings = cors.for_request(method, path_of(scope))
        if settings is None:
            await guarded(scope, receive, send)
            return
        try:
            await guarded(scope, receive, sending_cors(send, settings, origin))
        except Exception:
            _add_to_error_response(scope, cors_fields(settings, origin), is_first=False)
            raise

    async def _answer_preflight(
        self, scope: Scope, send: Send, facts: RequestFacts, route: "Route | None", headers: Headers, *, began_at: float
    ) -> None:
        gateway = self.gateway
        record: Record = gateway.recorder.record
        if gateway.traces is not None:
            _, record = self._traced(gateway.traces, scope, facts, route, began_at, None, perf_counter())
        status = int(HTTPStatus.NO_CONTENT)
        try:
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
        finally:
            record(None, route, PREFLIGHT_OUTCOME, status, began_at)

    def _traced(  # noqa: PLR0917 - the parts of a trace
        self,
        traces: "Traces",
        scope: Scope,
        facts: RequestFacts,
        route: "Route | None",
        began_at: float,
        admission_began_at: float | None,
        decided_at: float,
    ) -> "tuple[ASGIApp, Record]":
        """Return the application wrapped in a trace, and a function that records the request and ends the trace."""
        is_trusted = is_trusted_proxy(peer_of(scope), self.trust.proxies)
        trace = traces.begin_for_scope(scope, facts, route, is_trusted=is_trusted, began_at=began_at)
        return traces.wrap(self.app, self.gateway.recorder.record, trace, admission_began_at, decided_at)

    async def _refuse(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        facts: RequestFacts,
        denied: Denied,
        *,
        record: "Record",
        began_at: float,
    ) -> None:
        self.gateway.refusals.add(facts, denied)
        outcome = outcome_of_refusal(denied)
        note_decision(scope, facts, denied.principal, denied.route, outcome)
        headers = refusal_headers(denied, legacy=self.gateway.legacy_headers)
        problem = problem_for(denied, facts.request_id, self.gateway.brand, self.trust.credentials.challenge)
        try:
            await send_problem(scope, receive, send, problem, headers)
        finally:
            record(denied.principal, denied.route, outcome, problem.status, began_at)


def _add_to_error_response(scope: Scope, headers: Headers, *, is_first: bool = True) -> None:
    from machpay_gateway.web import server_errors  # noqa: PLC0415 - with 50 modules of Starlette

    earlier = () if is_first else scope.get(server_errors.ERROR_HEADERS, ())
    server_errors.add_to_error_response(scope, [*earlier, *headers])


def _trust_of(gateway: Gateway, trust: Trust | None) -> Trust:
    """Return the trust of *gateway*, or *trust* with the same places for credentials."""
    credentials = gateway.trust.credentials
    if trust is None:
        return gateway.trust
    return trust if trust.credentials == credentials else replace(trust, credentials=credentials)


async def _discard(_message: Message) -> None:
    """Send nothing."""


async def _connected() -> Message:
    """Return what the application has received already."""
    return {"type": "websocket.connect"}


def _gate_for(gateway: Gateway, app: ASGIApp) -> Gate:
    """Return the gate of *gateway*, which knows what the routes of *app* require.

    It refuses a caller who lacks their scopes as one who lacks those of the policy, before anything is spent.
    """
    application = ApplicationScopes(app)
    if not application.has_certain_requirements:
        return gateway.gate
    return gateway.gate.with_policy(gateway.policy.for_application(application))


async def _fail(error: ConfigurationError, scope: Scope, receive: Receive, send: Send) -> NoReturn:
    """Report a failed startup if *scope* is the lifespan, and raise *error* in any case."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": str(error)})
    raise error


def _inside_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
