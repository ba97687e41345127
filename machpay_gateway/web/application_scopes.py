"""What the routes of a FastAPI application require of a caller by `current_principal`.

Read from the routes themselves, without importing FastAPI: an application that has not imported
`machpay_gateway.fastapi` requires nothing by it. Included routers, mounted applications and their dependencies count.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from machpay_gateway.core.decision.policy import ApplicationRequirement
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.scopes import ScopeExpression, parse_scope_expression

_DEPENDENCY = "machpay_gateway.fastapi"  # the module of `current_principal`
_MOST_LAYERS = 100  # of middleware around an application: one that wraps itself must not hang
# Middleware that neither routes nor rewrites paths. Of others that is not certain.
_TRANSPARENT = ("starlette.", "fastapi.", "machpay_gateway.", "prometheus_", "opentelemetry.", "asgi_correlation_id.")
_REWRITING = frozenset({"starlette.middleware.base", "starlette.middleware.wsgi"})


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """A route of the application; *children* are those of what is mounted there, which takes the rest of the path."""

    path: str
    regex: re.Pattern[str]
    kind: str  # of the ASGI scope, or "mount"
    methods: frozenset[str] | None
    requires: ScopeExpression
    children: "tuple[_Endpoint, ...]" = ()


class ApplicationScopes:
    """The scopes that *app* requires, also behind middleware. Reads its routes when it is asked."""

    def __init__(self, app: object) -> None:
        self._app = app
        self._endpoints: tuple[_Endpoint, ...] | None = None

    def names(self) -> Iterator[str]:
        """Yield the names of all scopes that a route requires. Raises ConfigurationError for what is no scope."""
        yield from dict.fromkeys(name for endpoint in _endpoints_of(self._app) for name in _names(endpoint))

    @property
    def has_certain_requirements(self) -> bool:
        """Whether some route requires scopes, and nothing around the routes may send requests elsewhere.

        Only then may a request be refused before the application has seen it.
        """
        return may_refuse() and any(self.names()) and _is_transparent(self._app)

    def requirement(self, method: str, path: str) -> ApplicationRequirement | None:
        """Return what the route for *method* and the canonical *path* requires, None for nothing.

        A path that is a route for requests and another one for WebSockets requires nothing, unless both require the
        same: a handshake is a GET too.
        """
        if self._endpoints is None:
            self._endpoints = tuple(_endpoints_of(self._app))
        if (principal := _principal_dependency()) is None or _is_overridden(self._app, principal):
            return None
        endpoints = [_find(self._endpoints, kind, method, path) for kind in ("http", "websocket")]
        required = {endpoint.requires: endpoint for endpoint in endpoints if endpoint is not None}
        if len(required) != 1:
            return None
        (endpoint,) = required.values()
        return ApplicationRequirement(endpoint.path, endpoint.requires) if endpoint.requires.alternatives else None


def may_refuse() -> bool:
    """Tell whether an application in this process can require a caller by `current_principal`."""
    return _DEPENDENCY in sys.modules


def _principal_dependency() -> object | None:
    module = sys.modules.get(_DEPENDENCY)
    return None if module is None else getattr(module, "current_principal", None)


def _find(endpoints: Iterable[_Endpoint], kind: str, method: str, path: str) -> _Endpoint | None:
    """Return the route that Starlette would choose: the first that matches, and a mount is one."""
    for endpoint in endpoints:
        if endpoint.kind not in {kind, "mount"} or (match := endpoint.regex.match(path)) is None:
            continue
        if endpoint.kind == "mount":
            return _find(endpoint.children, kind, method, f"/{match['path']}")
        if kind == "websocket" and method != "GET":
            continue
        if kind == "websocket" or endpoint.methods is None or method in endpoint.methods:
            return endpoint
    return None


def _names(endpoint: _Endpoint) -> Iterator[str]:
    for names in endpoint.requires.alternatives:
        yield from sorted(name for name in names if not name.endswith("*"))
    for child in endpoint.children:
        yield from _names(child)


def _endpoints_of(app: object, prefix: str = "") -> Iterator[_Endpoint]:
    principal = _principal_dependency()
    if principal is None:
        return
    for route in _all_routes(getattr(_router_of(app), "routes", ())):
        regex = getattr(route, "path_regex", None)
        if not isinstance(regex, re.Pattern):
            children = tuple(_endpoints_of(getattr(route, "app", None), prefix))
            if children:  # of a `Host`, which may be one of several: its scopes are known, and it decides about them
                yield _Endpoint("", re.compile(r"(?!)"), "mount", None, ScopeExpression(), children)
            continue
        path = prefix + str(getattr(route, "path", ""))
        if "path" in regex.groupindex and getattr(route, "dependant", None) is None and hasattr(route, "routes"):
            mounted = getattr(route, "app", None)
            yield _Endpoint(path, regex, "mount", None, ScopeExpression(), tuple(_endpoints_of(mounted, path)))
            continue
        methods = getattr(route, "methods", None)
        is_websocket = "websocket" in type(_original(route)).__name__.lower()
        yield _Endpoint(
            path,
            regex,
            "websocket" if is_websocket else "http",
            None if methods is None else frozenset(methods),
            _required(path, getattr(route, "dependant", None), principal),
        )


def _all_routes(routes: Any) -> Iterable[Any]:  # noqa: ANN401 - of any framework
    """Return *routes* with those of included routers, which newer versions of FastAPI keep apart."""
    if not isinstance(routes, Sequence):
        return ()
    iterate = getattr(sys.modules.get("fastapi.routing"), "iter_route_contexts", None)
    try:
        return list(iterate(routes)) if iterate is not None else routes
    except (AttributeError, TypeError):  # routes of another framework
        return ()


def _original(route: Any) -> Any:  # noqa: ANN401 - of any framework
    return getattr(route, "original_route", route)


def _required(path: str, dependant: Any, principal: object) -> ScopeExpression:  # noqa: ANN401 - FastAPI's, by duck typing
    names = dict.fromkeys(_scopes_of(dependant, principal))
    try:
        return parse_scope_expression(list(names))
    except ConfigurationError as exc:
        raise ConfigurationError(f"The application's route {path}: {exc}") from exc


def _scopes_of(dependant: Any, principal: object) -> Iterator[str]:  # noqa: ANN401 - as above
    """Yield the scopes with which *dependant*, or what it depends on, requires the *principal*."""
    if dependant is None:
        return
    if dependant.call is principal:
        # FastAPI 0.118 has divided the first, which has all of them, into those of its own and of what depends on it.
        for attribute in ("security_scopes", "parent_oauth_scopes", "own_oauth_scopes"):
            yield from getattr(dependant, attribute, None) or ()
    for each in dependant.dependencies:
        yield from _scopes_of(each, principal)


def _is_overridden(app: object, principal: object) -> bool:
    """Tell whether tests have replaced the *principal* of *app*, which then requires nothing by it."""
    return principal in (getattr(_router_of(app), "dependency_overrides", None) or ())


def _router_of(app: object) -> object | None:
    """Return the first of *app* and what it wraps that has routes."""
    for layer in _layers(app):
        if hasattr(layer, "routes"):
            return layer
    return None


def _layers(app: object) -> Iterator[object]:
    for _ in range(_MOST_LAYERS):
        if app is None:
            return
        yield app
        app = getattr(app, "app", None)


def _is_transparent(app: object) -> bool:
    for layer in _layers(app):
        inner = [getattr(middleware, "cls", None) for middleware in getattr(layer, "user_middleware", ())]
        if not all(_keeps_paths(each) for each in inner):
            return False
        if hasattr(layer, "routes"):
            return True
        if not _keeps_paths(type(layer)):
            return False
    return False


def _keeps_paths(middleware: Any) -> bool:  # noqa: ANN401 - a class, or a factory
    classes = getattr(middleware, "__mro__", (middleware,))
    modules = [str(getattr(each, "__module__", "")) for each in classes if each is not object]
    return all(module.startswith(_TRANSPARENT) and module not in _REWRITING for module in modules)
