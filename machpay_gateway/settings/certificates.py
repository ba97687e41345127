"""Where the certificates of `machpay-gateway serve` are: one, or several for callers that ask for different names."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from machpay_gateway.core.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """A *certificate* with its chain and its *key*, both PEM files. *setting* is where they are set."""

    certificate: str
    key: str
    setting: str


def parse_certificates(certificate: str | None, key: str | None, certificates: object) -> tuple[CertificateFiles, ...]:
    """Return the default *certificate* with its *key*, if there is one, and then the list of *certificates*.

    The environment has the list as JSON. Raises ConfigurationError.
    """
    if (certificate is None) is not (key is None):
        raise ConfigurationError("tls_certificate and tls_key come together: set both, or neither")
    listed = tuple(_parse(table, f"certificates[{index}]") for index, table in enumerate(_tables(certificates)))
    if certificate is None or key is None:
        return listed
    return CertificateFiles(certificate, key, "tls_certificate"), *listed


def _tables(value: object) -> Sequence[object]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, Sequence):
        raise ConfigurationError('certificates is a list of tables, as in [{ certificate = "a.pem", key = "a.key" }]')
    return value


def _parse(table: object, setting: str) -> CertificateFiles:
    if not isinstance(table, Mapping):
        raise ConfigurationError(
            f'{setting} {table!r} is not a table, as in {{ certificate = "a.pem", key = "a.key" }}'
        )
    if unknown := sorted(map(str, table.keys() - {"certificate", "key"})):
        raise ConfigurationError(f"{setting}: {unknown[0]!r} is not a setting here; known: certificate, key")
    paths = [table.get(name) for name in ("certificate", "key")]
    if not all(isinstance(path, str) and path for path in paths):
        raise ConfigurationError(f"{setting} needs a certificate and a key, which are PEM files")
    return CertificateFiles(str(paths[0]), str(paths[1]), setting)
