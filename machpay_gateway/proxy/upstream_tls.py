"""TLS towards an upstream: whom the gateway trusts, and the certificate that it presents."""

import logging
import ssl

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.network.upstream_options import UpstreamOptions
from machpay_gateway.file_watch import FileWatch

logger = logging.getLogger(__name__)


class UpstreamTls:
    """The *context* for connections to one upstream. Mutable: `check_files` replaces it when its files have changed."""

    def __init__(self, options: UpstreamOptions, *, is_http2: bool) -> None:
        """Load the files of *options*, for servers of HTTP/2 if *is_http2*. Raises ConfigurationError."""
        self._options = options
        self._is_http2 = is_http2
        self._files = FileWatch(options.tls_files)
        self.context = self._load()

    def check_files(self) -> None:
        """Load the files again if they have changed. Those that cannot be used change nothing."""
        if not self._files.have_changed():
            return
        try:
            self.context = self._load()
        except ConfigurationError as exc:
            logger.error("New files of an upstream are not used; the old ones stay in effect: %s", exc)  # noqa: TRY400
        else:
            logger.info("The files %s are loaded again.", ", ".join(self._options.tls_files))

    def _load(self) -> ssl.SSLContext:
        context = upstream_context(self._options)
        if self._is_http2:
            context.set_alpn_protocols(["h2"])
        return context


def upstream_context(options: UpstreamOptions) -> ssl.SSLContext:
    """Return the context for connections to the upstream of *options*. Raises ConfigurationError."""
    try:
        context = ssl.create_default_context(cafile=options.tls_ca)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigurationError(f"upstreams: tls_ca {options.tls_ca!r} cannot be used: {exc}") from exc
    if options.tls_certificate is not None:
        try:
            context.load_cert_chain(options.tls_certificate, options.tls_key, password="")  # or OpenSSL asks for one
        except (OSError, ssl.SSLError) as exc:
            raise ConfigurationError(
                f"upstreams: tls_certificate {options.tls_certificate!r} with {options.tls_key!r} cannot be used: {exc}"
            ) from exc
    return context
