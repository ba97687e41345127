"""CORS for every front: which settings hold for a request, and the headers of its response."""

from collections.abc import Awaitable, Iterable

from starlette.types import Message, Send

from machpay_gateway.core.decision.policy import Policy
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.network.cors import CorsSettings, Headers, merge_vary

_PREFIX = b"access-control-"


class Cors:
    """The CORS settings of a gateway, by route."""

    def __init__(self, general: CorsSettings | None, policy: Policy) -> None:
        """Use *general* for each route of *policy* that has no settings of its own."""
        self._general = general
        self._policy = policy

    @classmethod
    def of(cls, general: CorsSettings | None, routes: Iterable[Route], policy: Policy) -> "Cors | None":
        """Return the CORS of a gateway with these settings; None if neither *general* nor any of *routes* has it on."""
        settings = [general, *(route.cors for route in routes)]
        is_on = any(isinstance(each, CorsSettings) and each.origins for each in settings)
        return cls(general, policy) if is_on else None

    def for_request(self, method: str, path: str | None) -> CorsSettings | None:
        """Return the settings for *method* on the canonical *path*; None where CORS is off."""
        rule = None if path is None else self._policy.rule(method, path)
        settings = rule.cors if isinstance(rule, Route) and isinstance(rule.cors, CorsSettings) else self._general
        return settings if settings is not None and settings.origins else None

    def announced_by(self, facts: RequestFacts) -> tuple[CorsSettings | None, Route | None]:
        """Return the settings and the route of the request that the preflight with these *facts* announces."""
        if facts.preflight_for is None or facts.path is None:
            return None, None
        rule = self._policy.rule(facts.preflight_for, facts.path)
        return self.for_request(facts.preflight_for, facts.path), rule if isinstance(rule, Route) else None


def with_cors(headers: Iterable[tuple[bytes, bytes]], settings: CorsSettings, origin: bytes | None) -> Headers:
    """Return the *headers* of a response with those of *settings* in place of all others of CORS."""
    vary: list[bytes] = []
    fields: Headers = []
    for name, value in headers:
        lower = name.lower()
        if lower == b"vary":
            vary.append(value)
        elif not lower.startswith(_PREFIX):
            fields.append((name, value))
    if not settings.allows_any:
        fields.append((b"vary", merge_vary(vary)))
    else:
        fields += ((b"vary", value) for value in vary)
    return fields + settings.response_headers(origin)


def sending_cors(send: Send, settings: CorsSettings, origin: bytes | None) -> Send:
    """Return *send* for an application whose responses get the headers of CORS."""

    def send_on(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message = dict(message, headers=with_cors(message.get("headers", ()), settings, origin))
        return send(message)

    return send_on


def preflight_headers(settings: CorsSettings, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return the headers of the response to a preflight with these *headers*, as *settings* have them."""
    fields = list(headers)
    requested = b", ".join(value for name, value in fields if name == b"access-control-request-headers")
    return settings.preflight_headers(
        only_value(fields, b"origin") or b"",
        only_value(fields, b"access-control-request-method") or b"",
        requested or None,
    )


def cors_fields(settings: CorsSettings | None, origin: bytes | None) -> Headers:
    """Return the headers of CORS for a response that has no others: a refusal, or that of a check request."""
    return [] if settings is None else with_cors((), settings, origin)


def only_value(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> bytes | None:
    """Return the value of the header *wanted*, None unless there is exactly one."""
    values = [value for name, value in headers if name == wanted]
    return values[0] if len(values) == 1 else None
