"""The `[server]` table: how `machpay-gateway serve` listens, its processes, certificates, logs and timeouts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from machpay_gateway.core.decision.route import ClientCertificate
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.network.proxy_settings import HEAD_BYTES
from machpay_gateway.core.network.upstream_options import check_dead_peer_seconds
from machpay_gateway.settings.certificates import CertificateFiles, parse_certificates
from machpay_gateway.settings.listeners import ListenAddress, Listener, parse_listen, parse_listeners

ControlPlane = Literal["on", "off", "only"]
LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

_NUMBERS = (
    ("workers", 1, 1024),
    ("max_connections", 0, 10_000_000),
    ("max_head_bytes", *HEAD_BYTES),
    ("max_header_lines", 10, 1000),
)
_CHOICES = (
    ("control_plane", ControlPlane),
    ("client_certificate", ClientCertificate),
    ("log_format", LogFormat),
    ("log_level", LogLevel),
)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What `machpay-gateway serve` serves, and how. Times are in seconds.

    *listen* is the address for callers, or a list of them, each as text or as a table of a `Listener`. *management* is
    the address for operators, or empty for none. *control_plane* is whether the control plane is served beside the
    proxy, not at all, or alone. *tls_certificate* and *tls_key* are PEM files; *certificates* are tables with more of
    them, of which each caller gets the one for the name that it asks for. *client_ca* are the authorities of client
    certificates, a PEM file, and *client_certificate* is whether each caller needs one. *proxy_protocol* is whether
    each connection begins with a header of the PROXY protocol. *access_log* is `stdout`, `off` or a file. *log_format*
    is the format of the process's own log on stderr, and *log_level* the least severe of its lines.
    At a stop, requests in flight have *drain_seconds* to finish. A request's head must arrive within *head_seconds*,
    and a connection may be idle for *keepalive_seconds* between requests. One whose client has acknowledged nothing for
    *dead_peer_seconds* is closed, unless these are 0. Each worker accepts *max_connections*, or
    with 0 as many as its file descriptors allow. The head of a request has at most *max_head_bytes* and
    *max_header_lines*. *http2* is whether callers may speak HTTP/2. Raises ConfigurationError.
    """

    listen: str | int | Mapping[str, object] | Sequence[object] = "127.0.0.1:8000"
    management: str = "127.0.0.1:9400"
    workers: int = 1
    control_plane: ControlPlane = "on"
    tls_certificate: str | None = None
    tls_key: str | None = None
    certificates: str | Sequence[object] = ()
    client_ca: str | None = None
    client_certificate: ClientCertificate = "optional"
    proxy_protocol: bool = False
    access_log: str = "stdout"
    log_format: LogFormat = "text"
    log_level: LogLevel = "info"
    drain_seconds: float = 30.0
    head_seconds: float = 10.0
    keepalive_seconds: float = 75.0
    dead_peer_seconds: float = 45.0
    max_connections: int = 0
    max_head_bytes: int = 32 * 1024
    max_header_lines: int = 100
    http2: bool = True
    listeners: tuple[Listener, ...] = field(init=False, repr=False)
    certificate_files: tuple[CertificateFiles, ...] = field(init=False, repr=False)
    management_address: ListenAddress | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "listeners", parse_listeners(self.listen))
        object.__setattr__(self, "management_address", parse_listen(self.management) if self.management else None)
        _check_management(self.management_address, self.listeners)
        for name, least, most in _NUMBERS:
            value = parse_number(getattr(self, name))
            if type(value) is not int or not least <= value <= most:
                raise ConfigurationError(f"{name} is a number from {least} to {most}, not {value!r}")
            object.__setattr__(self, name, value)
        for name in ("drain_seconds", "head_seconds", "keepalive_seconds"):
            seconds = parse_number(getattr(self, name))
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
                raise ConfigurationError(f"{name} is a number of seconds, not {seconds!r}")
            object.__setattr__(self, name, seconds)
        object.__setattr__(self, "dead_peer_seconds", check_dead_peer_seconds(parse_number(self.dead_peer_seconds)))
        for name, choices in _CHOICES:
            if (choice := getattr(self, name)) not in get_args(choices):
                raise ConfigurationError(f"{name} {choice!r} is not one of {', '.join(get_args(choices))}")
        for name in ("proxy_protocol", "http2"):
            object.__setattr__(self, name, _parse_flag(name, getattr(self, name)))
        if not self.access_log:
            raise ConfigurationError(f"access_log {self.access_log!r} is not stdout, off or the name of a file")
        self._check_tls()

    def _check_tls(self) -> None:
        files = parse_certificates(self.tls_certificate, self.tls_key, self.certificates)
        object.__setattr__(self, "certificate_files", files)
        if not files and any(listener.tls for listener in self.listeners):
            raise ConfigurationError("tls_certificate is not set, and a listener has tls = true: set both, or neither")
        if self.client_ca is not None and not files:
            raise ConfigurationError("client_ca needs tls_certificate and tls_key: without them there is no TLS")
        is_required = any(self.requires_certificate(listener) for listener in self.listeners)
        if self.client_ca is None and is_required:
            raise ConfigurationError("client_certificate needs client_ca, the authorities that issue them")

    def has_proxy_protocol(self, listener: Listener) -> bool:
        """Return whether connections to *listener* begin with a header of the PROXY protocol."""
        return self.proxy_protocol if listener.proxy_protocol is None else listener.proxy_protocol

    def requires_certificate(self, listener: Listener) -> bool:
        """Return whether callers of *listener* must present a certificate."""
        return (listener.client_certificate or self.client_certificate) == "required" and not listener.is_unix

    def has_tls(self, listener: Listener) -> bool:
        """Return whether callers of *listener* use TLS."""
        return bool(self.certificate_files) and not listener.is_unix and listener.tls is not False


def _check_management(address: ListenAddress | None, listeners: Sequence[Listener]) -> None:
    """Raise ConfigurationError if callers would reach the *address* for operators."""
    if address is not None and address.port and any(address in listener.places for listener in listeners):
        raise ConfigurationError(f"management {str(address)!r} is an address of listen too: operators need their own")


def _parse_flag(name: str, value: object) -> bool:
    if value in ("true", "false"):  # as the environment has it
        return value == "true"
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} is true or false, not {value!r}")
    return value


def parse_number(value: object) -> object:
    """Return *value* as a number if it is a number in text, as the environment has it, else as it is."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
        return float(value) if "." in value else int(value)
    return value
