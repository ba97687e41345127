"""`machpay-gateway serve --check`: everything that a start needs is tried, and nothing is served.

No request is sent to an upstream: connections to it are opened, with TLS where it has that, and closed.
"""

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from machpay_gateway.assembly import unservable
from machpay_gateway.cli.addresses import check_addresses, is_running
from machpay_gateway.cli.doctor import check_configuration, check_connections, check_hosts
from machpay_gateway.core.check_result import CheckResult, CheckStatus
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.network.upstream import UNIX, Origin
from machpay_gateway.core.network.upstream_options import UpstreamOptions
from machpay_gateway.proxy.upstream_tls import UpstreamTls
from machpay_gateway.serving.listening import AddressInUse, try_address
from machpay_gateway.serving.servable import check_servable
from machpay_gateway.serving.tls import describe_distrust, load_certificate, read_certificates
from machpay_gateway.settings import Settings
from machpay_gateway.settings.certificates import CertificateFiles
from machpay_gateway.settings.listeners import ListenAddress, Listener, UnixAddress, places_of
from machpay_gateway.stores.sql.engine import Database
from machpay_gateway.telemetry.access_log import OFF, STDOUT

_EXPIRES_SOON_DAYS = 7
_CONNECT_SECONDS = 5.0  # if the settings have no limit
_ALERT_SECONDS = 0.3
_DAY_SECONDS = 86400.0
# Mistakes that the checks of certificates and upstreams report.
_OF_FILES = ("server.tls_certificate:", "server.certificates[", "server.client_ca:", "upstreams: tls_")


def check_serving(settings: Settings, source: Path) -> Sequence[CheckResult]:
    """Return the results of trying *settings*, which are from *source*."""
    mistakes = [CheckResult("configuration", CheckStatus.WRONG, text) for text in _mistakes(settings)]
    if mistakes:
        return [*mistakes, *_check_certificates(settings)]
    return [
        check_configuration(source, settings),
        *_check_listeners(settings),
        check_addresses(settings),
        *_check_certificates(settings),
        *_check_access_log(settings),
        *check_hosts(settings),
        *asyncio.run(_check_others(settings)),
    ]


def _mistakes(settings: Settings) -> Iterator[str]:
    yield from unservable(settings)
    try:
        check_servable(settings)
    except ConfigurationError as exc:
        if not str(exc).startswith(_OF_FILES):
            yield str(exc)


async def _check_others(settings: Settings) -> Sequence[CheckResult]:
    options = settings.route_options(settings.routes)
    upstreams = [
        (
            environment if name is None else f"{name}.{environment}",
            origin,
            upstream.options,
            upstream.options.tls_server_name or options.of_service(name).fixed_host or origin.host,
        )
        for name, service in settings.all_services.items()
        for environment, upstream in service.items()
        for origin in upstream.origins
    ]
    seconds = settings.proxy.connect_seconds or _CONNECT_SECONDS
    results = await asyncio.gather(*(_check_upstream(*upstream, seconds) for upstream in upstreams))
    is_new = Database(settings.database, busy_timeout_seconds=_CONNECT_SECONDS).is_missing
    others = await check_connections(settings)
    return [
        *results,
        *(_new_database(result) if is_new and result.subject == "database" else result for result in others),
    ]


def _new_database(result: CheckResult) -> CheckResult:
    """Return the *result* of a SQLite file that is missing as a warning: `serve` creates it."""
    way_out = "`machpay-gateway init` creates it with an account and an admin key"
    return CheckResult("database", CheckStatus.WARNING, f"{result.message} yet; `serve` creates it, empty", way_out)


def _check_listeners(settings: Settings) -> Iterator[CheckResult]:
    """Yield whether each address can be listened on, or is already, by a gateway with these settings."""
    server = settings.server
    is_served = is_running(settings)
    places: list[tuple[str, ListenAddress | UnixAddress, Listener | None]] = [
        ("listen", place.address, server.listeners[place.listener]) for place in places_of(server.listeners)
    ]
    if server.management_address is not None:
        places.append(("management", server.management_address, None))
    for subject, address, listener in places:
        try:
            try_address(address, listener)
        except AddressInUse as exc:
            if is_served:
                message = f"{address} is in use, as it seems by the gateway that answers at {server.management}"
                yield CheckResult(subject, CheckStatus.OK, message)
            else:
                yield CheckResult(subject, CheckStatus.WRONG, str(exc))
        except ConfigurationError as exc:
            yield CheckResult(subject, CheckStatus.WRONG, str(exc))
        else:
            yield CheckResult(subject, CheckStatus.OK, f"{address} can be listened on")


def _check_certificates(settings: Settings) -> Iterator[CheckResult]:
    server = settings.server
    for files in server.certificate_files:
        yield _check_certificate(settings, files)
    if server.client_ca is not None:
        try:
            authorities = read_certificates(server.client_ca)
        except ConfigurationError as exc:
            yield CheckResult("client_ca", CheckStatus.WRONG, f"server.client_ca: {exc}", "name a PEM file")
            return
        soonest = min(authority.not_valid_after_utc.timestamp() for authority in authorities)
        number = f"{len(authorities)} certificate{'' if len(authorities) == 1 else 's'}"
        yield _dated("client_ca", f"{server.client_ca} has {number}", soonest)


def _check_certificate(settings: Settings, files: CertificateFiles) -> CheckResult:
    """Return whether a certificate for callers can be used, whom it is for, and for how long."""
    try:
        loaded = load_certificate(settings.server, files)
    except ConfigurationError as exc:
        way_out = "the key must be the certificate's, and both readable PEM files"
        return CheckResult("certificate", CheckStatus.WRONG, str(exc), way_out)
    names = ", ".join(sorted(loaded.names)) or "no DNS name"
    result = _dated("certificate", f"{loaded.file} is for {names}", loaded.expires_at)
    if result.status is CheckStatus.OK and (distrust := describe_distrust(loaded)):
        message = f"{result.message}; callers with the authorities of this host do not accept it: {distrust}"
        way_out = "append the certificates of its chain to the file, unless callers trust a private authority"
        return CheckResult("certificate", CheckStatus.WARNING, message, way_out)
    return result


def _dated(subject: str, message: str, expires_at: float) -> CheckResult:
    """Return the result for what expires at *expires_at*, in seconds since the epoch."""
    days = (expires_at - time.time()) / _DAY_SECONDS
    if days <= 0:
        return CheckResult(subject, CheckStatus.WRONG, f"{message}, and expired {-days:.0f} days ago", "renew it")
    status = CheckStatus.WARNING if days < _EXPIRES_SOON_DAYS else CheckStatus.OK
    way_out = "renew it" if status is CheckStatus.WARNING else None
    return CheckResult(subject, status, f"{message}, and expires in {days:.0f} days", way_out)


def _check_access_log(settings: Settings) -> Iterator[CheckResult]:
    target = settings.server.access_log
    if target in {STDOUT, OFF}:
        return
    path = Path(target)
    place = path if path.exists() else path.parent
    if path.is_dir() or not os.access(place, os.W_OK):
        message = f"{target} cannot be written"
        yield CheckResult("access log", CheckStatus.WRONG, message, "set server.access_log, or change its rights")
    else:
        yield CheckResult("access log", CheckStatus.OK, f"{target} can be written")


async def _check_upstream(
    name: str, origin: Origin, options: UpstreamOptions, tls_name: str, seconds: float
) -> CheckResult:
    """Return whether a connection to *origin* can be opened within *seconds*. No request is sent."""
    subject = f"upstream {name}"
    try:
        async with asyncio.timeout(seconds):
            message = await _connection_to(origin, options, tls_name)
    except TimeoutError:
        message, way_out = f"{origin} did not answer within {seconds:g} s", "check its address and the firewall"
    except ssl.SSLError as exc:
        message = f"{origin} answers, and TLS fails: {getattr(exc, 'verify_message', '') or exc}"
        way_out = "set tls_ca, tls_server_name or tls_certificate with tls_key, or correct its certificate"
    except ConfigurationError as exc:
        message, way_out = str(exc), "name PEM files that can be read"
    except OSError as exc:
        message, way_out = f"{origin} cannot be reached: {_reason(exc)}", "start it, or correct its address"
    else:
        return CheckResult(subject, CheckStatus.OK, message)
    return CheckResult(subject, CheckStatus.WRONG, message, way_out)


def _reason(exc: OSError) -> str:
    """Return what *exc* is: asyncio puts the address in the place of the error's text, and a resolver has its own."""
    if isinstance(exc, socket.gaierror) or not exc.errno:
        return exc.strerror or str(exc)
    return os.strerror(exc.errno)


async def _connection_to(origin: Origin, options: UpstreamOptions, tls_name: str) -> str:
    """Open a connection and close it; return what it was. Raises OSError, ssl.SSLError and ConfigurationError."""
    if origin.scheme == UNIX:
        _, writer = await asyncio.open_unix_connection(origin.host)
        writer.transport.abort()
        return f"{origin} accepts connections"
    if not origin.has_tls:
        _, writer = await asyncio.open_connection(origin.host, origin.port)
        address = writer.get_extra_info("peername")[0]
        writer.transport.abort()
        return f"{origin} accepts connections at {address}"
    context = UpstreamTls(options, is_http2=origin.is_http2).context
    reader, writer = await asyncio.open_connection(origin.host, origin.port, ssl=context, server_hostname=tls_name)
    tls, address = writer.get_extra_info("ssl_object"), writer.get_extra_info("peername")[0]
    expires_at = ssl.cert_time_to_seconds(tls.getpeercert()["notAfter"])
    try:
        if origin.is_http2 and tls.selected_alpn_protocol() != "h2":
            raise OSError("it does not speak HTTP/2 (no ALPN h2)")
        # With TLS 1.3, a server that misses a client certificate says so only after the handshake.
        with suppress(TimeoutError):
            async with asyncio.timeout(_ALERT_SECONDS):
                if not await reader.read(1):
                    raise OSError("it closes the connection after the handshake")
    finally:
        writer.transport.abort()
    days = (expires_at - time.time()) / _DAY_SECONDS
    return f"{origin} accepts {tls.version()} at {address}, and its certificate expires in {days:.0f} days"
