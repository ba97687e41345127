"""The settings of the proxy that hold for a route: those of `[proxy]`, of its service, and its own."""

from collections.abc import Iterable, Mapping

from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.network.proxy_settings import ProxySettings

Changes = Mapping[str | None, Mapping[str, object]]


class RouteOptions:
    """Finds the settings of a route. They are computed once for each."""

    def __init__(
        self, proxy: ProxySettings | None = None, services: Changes | None = None, routes: Iterable[Route] = ()
    ) -> None:
        """*proxy* has the defaults, which each of *services* may change. *routes* are all that there are.

        The service None is that of routes that name none.
        """
        proxy = proxy or ProxySettings()
        self._by_service: dict[str | None, ProxySettings] = {None: proxy}
        for name, changes in (services or {}).items():
            self._by_service[name] = proxy.with_changes(changes, of_service=True)
        self._by_route: dict[str, ProxySettings] = {}  # by a route's match
        self.all = [*self._by_service.values(), *map(self.of, routes)]

    @property
    def default(self) -> ProxySettings:
        """The settings of requests that have no route."""
        return self._by_service[None]

    def of(self, route: Route) -> ProxySettings:
        """Return the settings of *route*."""
        if (options := self._by_route.get(route.match)) is None:
            options = self._by_route[route.match] = self.of_service(route.service).with_changes(route.proxy)
        return options

    def of_service(self, name: str | None) -> ProxySettings:
        """Return the settings of the service *name*, or the default one."""
        return self._by_service[name]
