"""TLS towards callers: certificates by the name that a caller asks for, and files that are read again when they change.

A handshake begins with one context for the listener, whose callback selects the one of the certificate. So a new
certificate serves the next handshake, and open connections are left alone.
"""

import asyncio
import logging
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.file_watch import FileWatch
from machpay_gateway.settings.certificates import CertificateFiles
from machpay_gateway.settings.server import ServerSettings

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

logger = logging.getLogger("machpay_gateway")

# Mozilla's intermediate configuration, without finite-field Diffie-Hellman. TLS 1.3 has its own, which are all good.
_CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
_PROTOCOLS = ("h2", "http/1.1")
_WILDCARD = "*."
_CHECK_SECONDS = 1.0
_HANDSHAKE_STEPS = 5  # of each side, more than one takes


@dataclass(frozen=True, slots=True)
class LoadedCertificate:
    """A certificate with its *context*. *names* are those that it is for; *expires_at* is in seconds since 1970."""

    file: str
    context: ssl.SSLContext
    names: frozenset[str]
    expires_at: float


class CallerTls:
    """The certificates of one process. Mutable: `check_files` loads those that have changed."""

    def __init__(self, settings: ServerSettings) -> None:
        """Load the certificates of *settings*, of which there is at least one. Raises ConfigurationError."""
        self._settings = settings
        self._files = FileWatch(tls_files(settings))
        self._listener_contexts: dict[bool, ssl.SSLContext] = {}  # by whether they require a certificate
        self._set(load_certificates(settings))
        self._are_loaded_again = False
        self.mistake = ""  # why the files as they are now cannot be used

    def listener_context(self, *, requires_certificate: bool) -> ssl.SSLContext:
        """Return the context of a listener. *requires_certificate* is whether callers must present one."""
        context = self._listener_contexts.get(requires_certificate)
        if context is None:
            context = _context(self._settings, self._settings.certificate_files[0])
            if requires_certificate:
                context.verify_mode = ssl.CERT_REQUIRED
            self._listener_contexts[requires_certificate] = context
            self._select_by_callback()
        return context

    def expiries(self) -> Mapping[str, float]:
        """Return when each certificate expires, in seconds since the epoch, by its file."""
        return {loaded.file: loaded.expires_at for loaded in self._loaded}

    def describe(self, now: float) -> str:
        """Return `ok`, or what is wrong with the certificates at *now*, in seconds since the epoch."""
        if self.mistake:
            return f"stale: the earlier certificates are served, because the new ones cannot be used: {self.mistake}"
        if expired := [file for file, expires_at in self.expiries().items() if expires_at <= now]:
            return f"expired: callers refuse {', '.join(expired)}; renew it, and the new file is loaded by itself"
        return "ok"

    def start(self) -> None:
        """Check the files from now on."""
        asyncio.get_running_loop().call_later(_CHECK_SECONDS, self._tick)

    def _tick(self) -> None:
        self.start()
        self.check_files()

    def check_files(self) -> None:
        """Load the files again if they have changed. Those that cannot be used change nothing."""
        if not self._files.have_changed():
            return
        try:
            self._set(load_certificates(self._settings))
            self._are_loaded_again = True
            self._select_by_callback()
        except ConfigurationError as exc:
            self.mistake = str(exc)
            logger.error("The new certificates are not used; the old ones stay in effect: %s", exc)  # noqa: TRY400
        else:
            self.mistake = ""
            logger.info("The certificates are loaded again.")

    def _set(self, loaded: Sequence[LoadedCertificate]) -> None:
        self._loaded = loaded
        self._default = loaded[0].context
        # The first certificate for a name wins.
        self._by_name = {name: item.context for item in reversed(loaded) for name in item.names}

    def _select_by_callback(self) -> None:
        """Select certificates by a callback, unless all handshakes use the one of the listeners' contexts.

        The callback takes 5% of the time of a handshake.
        """
        if self._are_loaded_again or len(self._loaded) > 1:
            for context in self._listener_contexts.values():
                context.sni_callback = self._select

    def _select(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        connection.context = self._context_for(name)

    def _context_for(self, name: str | None) -> ssl.SSLContext:
        if name is None:
            return self._default
        name = name.lower().removesuffix(".")
        by_name = self._by_name
        return by_name.get(name) or by_name.get(_WILDCARD + name.partition(".")[2]) or self._default


def tls_files(settings: ServerSettings) -> Sequence[str]:
    """Return the files that TLS towards callers is read from."""
    files = [path for pair in settings.certificate_files for path in (pair.certificate, pair.key)]
    return files if settings.client_ca is None else [*files, settings.client_ca]


def load_certificates(settings: ServerSettings) -> Sequence[LoadedCertificate]:
    """Return the certificates of *settings*. Raises ConfigurationError for the first that cannot be used."""
    return [load_certificate(settings, files) for files in settings.certificate_files]


def load_certificate(settings: ServerSettings, files: CertificateFiles) -> LoadedCertificate:
    """Return the certificate in *files*. Raises ConfigurationError."""
    return LoadedCertificate(files.certificate, _context(settings, files), *_names_and_expiry(files.certificate))


def describe_distrust(loaded: LoadedCertificate) -> str | None:
    """Return why a caller with the authorities of this host would refuse a certificate, None if it would not."""
    caller = ssl.create_default_context()
    name = next((name.replace("*", "www") for name in sorted(loaded.names)), None)
    caller.check_hostname = name is not None
    to_caller, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        loaded.context.wrap_bio(to_server, to_caller, server_side=True),
        caller.wrap_bio(to_caller, to_server, server_hostname=name),
    ]
    for _ in range(_HANDSHAKE_STEPS):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as exc:
                return exc.verify_message
            except ssl.SSLError as exc:
                return str(exc)
    return None


def read_certificates(path: str) -> "Sequence[Certificate]":
    """Return the certificates in the PEM file at *path*, at least one. Raises ConfigurationError."""
    from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415 - only where there is TLS

    try:
        return load_pem_x509_certificates(Path(path).read_bytes())
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{path!r} has no certificate that can be read: {exc}") from exc


def _context(settings: ServerSettings, files: CertificateFiles) -> ssl.SSLContext:
    """Return a context with the certificate in *files*. Raises ConfigurationError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    try:
        context.load_cert_chain(files.certificate, files.key, password="")  # or OpenSSL asks for one on the terminal
    except (OSError, ssl.SSLError) as exc:
        raise ConfigurationError(
            f"server.{files.setting}: {files.certificate!r} with {files.key!r} cannot be used: {exc}"
        ) from exc
    # The control plane alone does not speak HTTP/2.
    takes_http2 = settings.http2 and settings.control_plane != "only"
    context.set_alpn_protocols(_PROTOCOLS if takes_http2 else _PROTOCOLS[1:])
    if settings.client_ca is not None:
        try:
            context.load_verify_locations(settings.client_ca)
        except (OSError, ssl.SSLError) as exc:
            raise ConfigurationError(f"server.client_ca: {settings.client_ca!r} cannot be used: {exc}") from exc
        context.verify_mode = ssl.CERT_OPTIONAL
        # A resumed session would skip the check against an authority that has been removed since.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    return context


def _names_and_expiry(path: str) -> tuple[frozenset[str], float]:
    from cryptography import x509  # noqa: PLC0415 - only where there is TLS

    certificate = read_certificates(path)[0]
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        names = []
    else:
        names = extension.value.get_values_for_type(x509.DNSName)
    return frozenset(name.lower() for name in names), certificate.not_valid_after_utc.timestamp()
