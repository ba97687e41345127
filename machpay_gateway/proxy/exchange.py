"""One request, from its head to the end of its answer: decided as everywhere, refused or carried on, and counted."""

import asyncio
from collections.abc import Coroutine
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

from machpay_gateway.core.decision.decision import Allowed, Decision, Denied
from machpay_gateway.core.decision.principal import Anonymous, Principal
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.limits.admission import Admitted, PendingAnswer, abandon
from machpay_gateway.core.network.proxy_options import ProxyOptions
from machpay_gateway.core.usage.counters import ALLOWED
from machpay_gateway.gate import PendingAdmission, PendingIdentity
from machpay_gateway.proxy.answers import answer_head, own_lines, refusal, switching_head
from machpay_gateway.proxy.carrying import Carrying
from machpay_gateway.proxy.forwarding import Hop, upstream_head, verbatim_head, with_cookies
from machpay_gateway.proxy.framing import FramedRequest
from machpay_gateway.proxy.heads import AnswerHead
from machpay_gateway.proxy.pool import Pool
from machpay_gateway.proxy.ports import NEVER, Carried, DownstreamClient, Front
from machpay_gateway.telemetry.refusals import log_refusal
from machpay_gateway.web.page_hosts import PageGuard
from machpay_gateway.web.streams import CHECK_SECONDS

if TYPE_CHECKING:
    from machpay_gateway.telemetry.traces import Trace

_DECISION_SECONDS = 30.0  # for what a store and an issuer are asked, each with shorter patience of its own
_CLIENT_GONE = 499


class Exchange(Carried):
    """A request and what became of it. *due* is when its patience ends, *check_at* when to look at its credential."""

    principal: Principal | Anonymous | None = None
    grant: Admitted | None = None
    route: Route | None = None
    carrying: Carrying | None = None
    asked_at: float | None = None
    decided_at: float | None = None
    answered_at: float | None = None
    trace: "Trace | None" = None
    due = NEVER
    check_at = NEVER
    status = 0
    sent_bytes = 0
    is_over = False
    _is_counted = False
    _answer: PendingAnswer | None = None  # of the limiter
    _task: asyncio.Task[Decision] | None = None

    def __init__(self, front: Front, client: DownstreamClient, request: FramedRequest) -> None:
        """Take the *request* that came over *client*."""
        self.began_at = perf_counter()
        self.client = client
        self.request = request.head
        self.closes = request.head.closes  # the client's connection, after this
        self.facts, self._walk = front.facts_of(client, request)
        self._front = front

    def begin(self, raw: bytes) -> None:
        """Decide, or begin to. The head is *raw* as it came."""
        front = self._front
        own = front.upstreams.own_pool(self.facts.path) if front.has_control_plane else None
        pages, head = front.pages, self.request
        # Nearly always one lookup: pages are paths of the control plane, so that the host alone is to be looked at.
        if (
            pages is not None
            and (own is not None or head.host not in pages.plain or head.forwarded_host or not front.has_control_plane)
            and (detail := self._misplaced(pages, is_ours=own is not None)) is not None
        ):
            self.refuse(Reason.ROUTE_NOT_FOUND, detail)
            return
        if own is not None:
            self._carry(own, front.carriage, self._own_head(raw))
            return
        decision = front.gate.decide_nowait(self.facts)
        if type(decision) is Allowed:
            self._allow(decision)
        else:
            self._proceed(decision)

    def answer_head(self, answer: AnswerHead, *, is_open: bool) -> bytes:
        """Return the head of *answer* as the client gets it; the length of its body is not known when it *is_open*."""
        self.closes |= self.client.will_close
        own = own_lines(self.principal, self.grant, self.facts.request_id, legacy=self._front.legacy_headers)
        return answer_head(answer, own, minor=self.request.minor, closes=self.closes, is_open=is_open)

    def switching_head(self, answer: AnswerHead) -> bytes:
        """Return the head of a 101 *answer* as the client gets it."""
        own = own_lines(self.principal, self.grant, self.facts.request_id, legacy=self._front.legacy_headers)
        return switching_head(answer, own)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Do *work* beside everything else."""
        self._front.run(work)

    def refuse(self, reason: Reason, detail: str) -> None:
        """Answer that the request goes no further, for a *reason* that the proxy has."""
        principal = self.principal if isinstance(self.principal, Principal) else None
        self._refuse(Denied(reason, detail, self.route, principal))

    def abort(self) -> None:
        """End what cannot be ended well: the client sees that its answer is not whole."""
        if self.trace is not None:
            self.trace.broke("answer_broken_off")
        self._finish(ALLOWED, self.status or _CLIENT_GONE)
        self.client.abort(by_reset=not self.request.minor)

    def give_up(self, detail: str) -> None:
        """Answer that the request goes no further because there is no room for it."""
        if self.carrying is not None:
            self.carrying.stop()
        self.closes = True
        self.refuse(Reason.UNAVAILABLE, detail)

    def cut(self) -> None:
        """End what may not go on."""
        if self.carrying is not None:
            self.carrying.stop()
        self.abort()

    def client_gone(self) -> None:
        """End everything: nobody waits any more."""
        if self._answer is not None and not self._answer.cancel():
            abandon(self._answer)
        if self._task is not None:
            self._task.cancel()
        if self.carrying is not None:
            self.carrying.stop()
        if self.trace is not None:
            self.trace.broke("client_gone")
        self._finish(ALLOWED, self.status or _CLIENT_GONE)

    def expire(self) -> None:
        """End what took too long."""
        self.due = NEVER
        if self.carrying is not None:
            self.carrying.expire()
        elif self._task is not None:
            self._task.cancel()
            self.refuse(Reason.UNAVAILABLE, "the decision takes too long")

    def count(self) -> None:
        """Count the request now, though it goes on: what was upgraded may last for days."""
        self._is_counted = True
        self._front.record(self, ALLOWED, self.status)

    def finish(self, *, may_go_on: bool) -> None:
        """Note that the whole answer was sent; the connection takes another request if it *may_go_on*."""
        self._finish(ALLOWED, self.status)
        self.client.exchange_ended(may_go_on=may_go_on and not self.closes)

    def tunnel_ended(self) -> None:
        """Note that nothing more goes through."""
        self._finish(ALLOWED, self.status)

    def _proceed(self, decision: Decision | PendingAdmission | PendingIdentity) -> None:
        """Take the next step that *decision* asks for."""
        if isinstance(decision, Allowed):
            self._allow(decision)
        elif isinstance(decision, PendingAdmission):
            self.asked_at = perf_counter()
            self._answer = decision.answer
            decision.answer.add_done_callback(lambda answer: self._limiter_answered(decision, answer))
        elif isinstance(decision, PendingIdentity):
            self.asked_at = None  # it will be asked anew, and how long that takes is for the gate to know
            self.due = monotonic() + _DECISION_SECONDS
            self._task = self._front.loop.create_task(self._front.gate.resolve(decision))
            self._task.add_done_callback(self._settled)
        elif isinstance(decision, Denied):
            self.decided_at = perf_counter()
            self._refuse(decision)

    def _limiter_answered(self, asked: PendingAdmission, answer: PendingAnswer) -> None:
        self._answer = None
        if self.is_over or answer.cancelled():
            return
        self._proceed(self._front.gate.apply_answer(asked, answer.result()))

    def _settled(self, task: asyncio.Task[Decision]) -> None:
        self._task = None
        if task.cancelled():
            return
        if (surprise := task.exception()) is not None:
            if not self.is_over:
                self.refuse(Reason.UNAVAILABLE, "the decision failed")
            raise surprise  # for the log
        decision = task.result()
        if not self.is_over:
            self._proceed(decision)
        elif isinstance(decision, Allowed) and decision.admission is not None:
            decision.admission.lease.release()

    def _allow(self, allowed: Allowed) -> None:
        self.decided_at = perf_counter()
        principal, self.grant, self.route = allowed
        self.principal = principal
        carriage = self._front.carriage_for(self.route)
        head = self._upstream_head(credentials=carriage.forward_credentials)
        self._carry(self._front.upstreams.pool_for(principal), carriage, head)

    def _carry(self, pool: Pool, carriage: ProxyOptions, head: bytes) -> None:
        self.carrying = carrying = Carrying(self, pool, carriage, head)
        self.check_at = monotonic() + CHECK_SECONDS
        carrying.begin()

    def _misplaced(self, pages: PageGuard, *, is_ours: bool) -> str | None:
        """Return why this is not answered at the host that it came to, None when it is."""
        request = self.request
        forwarded_host = request.forwarded_host if self.client.is_trusted else None
        return pages.refusal(self.facts.path, request.host, forwarded_host, is_ours=is_ours)

    def _own_head(self, raw: bytes) -> bytes:
        if self._front.upstreams.is_question(self.facts.path):
            trace = self._front.begin_trace(self) if self._front.traces is not None else b""
            return verbatim_head(raw, self.request, self.client.host, trace)
        return with_cookies(self._upstream_head(credentials=True), self.request.own_cookies)

    def _upstream_head(self, *, credentials: bool) -> bytes:
        request, client = self.request, self.client
        hop = Hop(self._walk, client.scheme, request.host)
        if client.is_trusted:
            hop.believe(request)
        return upstream_head(
            request,
            hop,
            self.principal,
            self.facts.request_id,
            authorization=self.facts.authorization if credentials else (),
            assertion=self._front.assertion_for(self.principal) if self._front.asserts else b"",
            trace=self._front.begin_trace(self) if self._front.traces is not None else b"",
        )

    def _refuse(self, denied: Denied) -> None:
        log_refusal(self.facts, denied)
        closes = self.closes or self.client.will_close or not self.client.has_body_here()
        answer, status = refusal(
            denied,
            self.facts.request_id,
            legacy=self._front.legacy_headers,
            closes=closes,
            minor=self.request.minor,
            is_head=self.request.method == b"HEAD",
            grant=self.grant,
        )
        self.carrying = None
        self.due = NEVER
        self.principal = self.principal or denied.principal
        self.route = self.route or denied.route
        self.sent_bytes = len(answer)
        self.client.transport.write(answer)
        self._finish(denied.reason, status)
        self.client.exchange_ended(may_go_on=not closes)

    def _finish(self, outcome: str, status: int) -> None:
        if self.is_over:
            return
        self.is_over = True
        self.carrying = None  # which knows this: a circle would be left to the garbage collector, for every request
        if self.grant is not None:
            self.grant.lease.release()
        if not self._is_counted:
            self._front.record(self, outcome, status)
