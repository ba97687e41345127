"""The check of `doctor` for proxies that are not trusted: whether the gateway sees its callers' addresses."""

import re
from http.client import HTTPConnection, HTTPException

from machpay_gateway.core.check_result import CheckResult, CheckStatus
from machpay_gateway.core.network.address import is_loopback
from machpay_gateway.settings import Settings
from machpay_gateway.settings.listeners import UnixAddress

_TIMEOUT_SECONDS = 2.0
_MOST_BYTES = 4 * 1024 * 1024
_IGNORED = re.compile(r"^machpay_forwarding_ignored_total(?:\{\})? ([0-9.e+]+)$", re.MULTILINE)
_REQUESTS = re.compile(r"^machpay_requests_total\{.*\} ([0-9.e+]+)$", re.MULTILINE)
_FEW = 10  # requests; a share of fewer is not significant
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where such a listener is reached from this host


def check_addresses(settings: Settings) -> CheckResult:
    """Check for untrusted proxies by the metrics of the running gateway, or by the settings alone."""
    if (metrics := _metrics(settings)) is None:
        return _check_settings(settings)
    ignored, requests = (sum(map(float, pattern.findall(metrics))) for pattern in (_IGNORED, _REQUESTS))
    header = settings.client_ip_header
    if ignored < _FEW or ignored * 2 < requests:
        return CheckResult(
            "addresses", CheckStatus.OK, f"{ignored:.0f} of {requests:.0f} requests had an ignored {header}"
        )
    return CheckResult(
        "addresses",
        CheckStatus.WARNING,
        f"{ignored:.0f} of {requests:.0f} requests had the header {header} and came from a peer that is not in "
        "trusted_proxies: if that is a proxy, all callers behind it count as one address",
        "set trusted_proxies to your own proxies; the log names the peer. Callers may send the header, too",
    )


def is_running(settings: Settings) -> bool:
    """Return whether a gateway answers at the management address."""
    return _metrics(settings) is not None


def _check_settings(settings: Settings) -> CheckResult:
    where = settings.server.management
    no_metrics = (
        f"no running gateway answers at {where}" if where else "management is empty, so no gateway can be asked"
    )
    if settings.trusted_proxies is not None:
        return CheckResult(
            "addresses", CheckStatus.OK, f"trusted_proxies is set; {no_metrics} to say what callers send"
        )
    places = [place for listener in settings.server.listeners for place in listener.places]
    if all(isinstance(place, UnixAddress) or is_loopback(place.host) for place in places):
        return CheckResult(
            "addresses",
            CheckStatus.OK,
            f"the client is whoever connects, and it listens on this host alone; {no_metrics}",
        )
    listen = ", ".join(listener.address for listener in settings.server.listeners)
    return CheckResult(
        "addresses",
        CheckStatus.WARNING,
        f"it listens on {listen} and trusts no proxy: the client is whoever connects; {no_metrics}",
        "set trusted_proxies if a proxy or load balancer stands in front",
    )


def _metrics(settings: Settings) -> str | None:
    """Return the metrics of the running gateway, or None when it does not respond."""
    address = settings.server.management_address
    if address is None:
        return None
    connection = HTTPConnection(_ANY.get(address.host, address.host), address.port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/metrics", headers={"Accept": "text/plain"})
        text = connection.getresponse().read(_MOST_BYTES).decode("utf-8", "replace")
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
    return text if "machpay_requests_total" in text else None
