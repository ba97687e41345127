"""Finds every MachPayAuth in an application, wherever a framework holds it, and has it use another gateway.

Applications hold what they wrap in attributes, closures, partials, and lists of routes. Starlette builds its middleware
at the first request; until then, it holds classes and arguments.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any, TypeVar, cast

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp
from typing_extensions import override

from machpay_gateway.assembly import ConfiguredGateway
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.gateway import Gateway
from machpay_gateway.middleware import MachPayAuth
from machpay_gateway.settings import MEMORY_DATABASE, Options, load_settings

# What needs a server, a file or a secret, which tests do not have. No decision about a given caller depends on it.
_UNUSED = frozenset({
    "assertion", "console", "database", "database_file", "identify", "issuers", "leaks", "oauth", "redis", "redis_file",
    "secret_key", "secret_key_file", "traces",
})  # fmt: skip
_Node = TypeVar("_Node")
_OPTIONS = Options.__optional_keys__
_CONTAINERS = (list, tuple, set, frozenset)
_HOLDERS = "litestar."  # the package whose routes hold applications without being callable themselves


class BuiltGuard:
    """A middleware that exists, with the *gateway* that it had when it was found."""

    def __init__(self, middleware: MachPayAuth) -> None:
        """Raise the ConfigurationError of a middleware that has no gateway."""
        if middleware.config_error is not None:
            raise middleware.config_error
        self.gateway = middleware.gateway
        self._middleware = middleware

    @property
    def current(self) -> Gateway:
        """The gateway that decides now."""
        return self._middleware.gateway

    def use(self, gateway: Gateway) -> Callable[[], None]:
        """Have *gateway* decide; return what undoes that."""
        before = self.current
        self._middleware.use_gateway(gateway)
        return partial(self._middleware.use_gateway, before)


class EarlyBuiltGuard(BuiltGuard):
    """A middleware in the *stack* of *app*, built before its first request: it is inside of other middleware."""

    def __init__(self, middleware: MachPayAuth, app: Starlette, stack: ASGIApp) -> None:
        super().__init__(middleware)
        self._app = app
        self._stack = stack

    @override
    def use(self, gateway: Gateway) -> Callable[[], None]:
        undo_use, before = super().use(gateway), self._app.middleware_stack
        self._app.middleware_stack = self._stack

        def undo() -> None:
            undo_use()
            self._app.middleware_stack = before

        return undo


class PlannedGuard:
    """A middleware that *app* builds from *entry* at its first request.

    *gateway* is the one that it is given, else one with its settings on nothing but memory.
    """

    def __init__(self, app: Starlette, entry: Middleware) -> None:
        """Raise ConfigurationError for settings that are wrong."""
        self._app = app
        self._entry: Any = entry  # its types are of the arguments of one class
        self.gateway = self.current or _in_memory(
            {name: value for name, value in entry.kwargs.items() if name in _OPTIONS}
        )

    @property
    def current(self) -> Gateway | None:
        """The gateway that will decide; None for one of its own."""
        gateway = self._entry.kwargs.get("gateway")
        return gateway if isinstance(gateway, Gateway) else None

    def use(self, gateway: Gateway) -> Callable[[], None]:
        """Have *gateway* decide; return what undoes that."""
        app, entry = self._app, self._entry
        arguments, stack = entry.kwargs, app.middleware_stack
        others = {name: value for name, value in arguments.items() if name not in _OPTIONS}
        entry.kwargs = others | {"gateway": gateway}
        app.middleware_stack = None

        def undo() -> None:
            entry.kwargs, app.middleware_stack = arguments, stack

        return undo


Guard = BuiltGuard | PlannedGuard


def find_guards(app: object) -> list[Guard]:
    """Return every MachPayAuth in *app*. Raises ConfigurationError if there is none."""
    nodes = list(_reachable(app))
    unbuilt = [node for node in _of_type(Starlette, nodes) if node.middleware_stack is None]
    guards: list[Guard] = [
        *map(BuiltGuard, _of_type(MachPayAuth, nodes)),
        *(guard for node in unbuilt for guard in _planned(node)),
    ]
    guards = guards or [guard for node in unbuilt for guard in _built_early(node)]
    if not guards:
        raise ConfigurationError(
            f"No MachPayAuth guards this {type(app).__name__}: add it by app.add_middleware(MachPayAuth), or give "
            "as_principal the application that MachPayAuth(app) or create_app(app) returned"
        )
    return guards


def _in_memory(options: Mapping[str, Any]) -> Gateway:
    settings = load_settings(cast("Options", options), without=_UNUSED)
    return ConfiguredGateway(settings=replace(settings, database=MEMORY_DATABASE))


def _planned(app: Starlette) -> Iterator[PlannedGuard]:
    for entry in app.user_middleware:
        if isinstance(entry.cls, type) and issubclass(entry.cls, MachPayAuth):
            yield PlannedGuard(app, entry)


def _built_early(app: Starlette) -> Iterator[EarlyBuiltGuard]:
    if app.user_middleware:
        stack = app.build_middleware_stack()
        for middleware in _of_type(MachPayAuth, _reachable(stack)):
            yield EarlyBuiltGuard(middleware, app, stack)


def _of_type(kind: type[_Node], nodes: Iterable[object]) -> Iterator[_Node]:
    # By their types: a proxy may claim another class, and import or connect to tell.
    return (cast("_Node", node) for node in nodes if issubclass(type(node), kind))


def _reachable(app: object) -> Iterator[object]:
    """Yield *app* and everything that may be an application in it, each once."""
    seen: dict[int, object] = {}  # the objects too: an id is only one's own while it lives
    waiting = deque([app])
    while waiting:
        node = waiting.popleft()
        if id(node) not in seen:
            seen[id(node)] = node
            yield node
            waiting.extend(value for value in _held_by(node) if _may_hold(value))


def _held_by(node: Any) -> Iterable[object]:  # noqa: ANN401 - told apart here
    # By types, and only built-in containers: what else an application holds may do I/O when it is looked at.
    kind = type(node)
    if issubclass(kind, dict):
        return list(node.values())
    if issubclass(kind, _CONTAINERS):
        return list(node)
    if issubclass(kind, MethodType):
        return [node.__self__, node.__func__]
    if issubclass(kind, partial):
        return [node.func, *node.args, *node.keywords.values()]
    if issubclass(kind, FunctionType):
        return [*map(_content, node.__closure__ or ()), *vars(node).values()]
    return _attributes(node)


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # it is not assigned yet
        return None


def _attributes(node: object) -> Iterator[object]:
    with suppress(AttributeError):
        yield from list(object.__getattribute__(node, "__dict__").values())
    for cls in type(node).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            with suppress(AttributeError):  # it is not assigned, or its name is mangled
                yield object.__getattribute__(node, name)


def _may_hold(value: object) -> bool:
    kind = type(value)
    if issubclass(kind, (type, ModuleType)):
        return False
    return callable(value) or issubclass(kind, (dict, *_CONTAINERS)) or kind.__module__.startswith(_HOLDERS)
