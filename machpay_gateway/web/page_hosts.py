"""Page hosts for fronts: what is answered at which host, at the cost of a lookup, and logged once for each host."""

import logging

from machpay_gateway.core.network.page_hosts import PageHosts

logger = logging.getLogger("machpay_gateway")

_MOST_REMEMBERED = 1024
_LONGEST_REMEMBERED = 256  # bytes
_MOST_LOGGED = 64  # callers choose what Host says


class PageGuard:
    """Tells what is not answered at the host that a request came to. Hosts in *plain* are reserved for no pages."""

    def __init__(self, hosts: PageHosts) -> None:
        """Guard the pages of *hosts*."""
        self.hosts = hosts
        self._paths = hosts.paths
        self.plain: set[bytes] = set()
        self._logged: set[str] = set()

    def refusal(
        self, path: str | None, host: bytes | None, forwarded_host: bytes | None = None, *, is_ours: bool
    ) -> str | None:
        """Return why *path* is not answered here, None when it is; arguments as for `PageHosts.refusal`.

        An ambiguous path, None, is left for the gate to refuse.
        """
        if path is None:
            return None
        # Nearly always: neither a page nor a host of pages.
        if forwarded_host is None and host in self.plain and not path.startswith(self._paths):
            return None
        detail = self.hosts.refusal(path, host, forwarded_host, is_ours=is_ours)
        if detail is not None:
            self._log(detail)
        elif host is not None and len(host) <= _LONGEST_REMEMBERED and self.hosts.reserved_by(host) is None:
            if len(self.plain) >= _MOST_REMEMBERED:
                self.plain.clear()  # of what somebody made up; the others are back at once
            self.plain.add(host)
        return detail

    def refusal_to_forward(self, path: str | None, host: bytes | None) -> str | None:
        """Return why a request for *path* at *host* is not for a proxy's upstream to answer, None when it is."""
        detail = None if path is None else self.hosts.refusal_to_forward(path, host)
        if detail is not None:
            self._log(detail)
        return detail

    def _log(self, detail: str) -> None:
        """Say once for each host what is wrong there."""
        if detail not in self._logged and len(self._logged) < _MOST_LOGGED:
            self._logged.add(detail)
            logger.warning("refused: %s", detail)
