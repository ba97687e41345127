"""Page hosts on the request path: the check costs one lookup, and each refused host is logged once."""

import logging

from machpay_gateway.core.network.page_hosts import PageHosts

logger = logging.getLogger("machpay_gateway")

_MAX_CACHED = 1024
_MAX_CACHED_BYTES = 256  # of a host
_MAX_LOGGED = 64  # callers choose the Host


class PageGuard:
    """Refuses requests at the wrong host. *plain* is a cache of hosts that are not reserved for pages."""

    def __init__(self, hosts: PageHosts) -> None:
        """Guard the pages of *hosts*."""
        self.hosts = hosts
        self._paths = hosts.paths
        self.plain: set[bytes] = set()
        self._logged: set[str] = set()

    def refusal(
        self, path: str | None, host: bytes | None, forwarded_host: bytes | None = None, *, is_ours: bool
    ) -> str | None:
        """Return why *path* is not served at *host*, None when it is; arguments as for `PageHosts.refusal`.

        The gate refuses an ambiguous path, which is None here.
        """
        if path is None:
            return None
        # Nearly always: neither a page nor a host of pages.
        if forwarded_host is None and host in self.plain and not path.startswith(self._paths):
            return None
        detail = self.hosts.refusal(path, host, forwarded_host, is_ours=is_ours)
        if detail is not None:
            self._log(detail)
        elif host is not None and len(host) <= _MAX_CACHED_BYTES and self.hosts.reserved_by(host) is None:
            if len(self.plain) >= _MAX_CACHED:
                self.plain.clear()  # an attacker's made-up hosts filled it; real ones are back within a few requests
            self.plain.add(host)
        return detail

    def refusal_to_forward(self, path: str | None, host: bytes | None) -> str | None:
        """Return why a proxy must not forward *path* at *host* to its own upstream, None when it may."""
        detail = None if path is None else self.hosts.refusal_to_forward(path, host)
        if detail is not None:
            self._log(detail)
        return detail

    def _log(self, detail: str) -> None:
        """Log *detail* once."""
        if detail not in self._logged and len(self._logged) < _MAX_LOGGED:
            self._logged.add(detail)
            logger.warning("refused: %s", detail)
