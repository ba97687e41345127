"""The certificate of a TLS client, as identity headers tell an upstream about it.

Values are percent-encoded where a certificate could otherwise write what looks like another name: its authority may
sign any text.
"""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any
from urllib.parse import quote

_VISIBLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_IN_LIST = _VISIBLE.replace(",", "").replace(" ", "")
_ESCAPED = frozenset('"+,;<>\\')  # RFC 4514 §2.4
# RFC 4514 §3, by the names that OpenSSL has; others keep those.
_SHORT_NAMES = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "STREET",
    "userId": "UID",
}
_KINDS = {"IP Address": "IP", "Registered ID": "RID"}


def certificate_fields(certificate: Mapping[str, Any], der: bytes, prefix: str) -> Sequence[tuple[str, str]]:
    """Return name and value of each identity header about *certificate*; names begin with *prefix*.

    *certificate* is as `ssl` parses it, and *der* are its bytes.
    """
    fields = [
        (f"{prefix}Certificate-Subject", quote(_distinguished_name(certificate.get("subject", ())), safe=_VISIBLE)),
        (f"{prefix}Certificate-Sha256", sha256(der).hexdigest()),
    ]
    if names := ", ".join(_alternative_names(certificate.get("subjectAltName", ()))):
        fields.insert(1, (f"{prefix}Certificate-San", names))
    return fields


def _distinguished_name(subject: Sequence[Sequence[tuple[str, str]]]) -> str:
    """Return *subject* as RFC 4514 writes it: the last part first."""
    parts = ("+".join(f"{_SHORT_NAMES.get(name, name)}={_escape(value)}" for name, value in part) for part in subject)
    return ",".join(reversed([*parts]))


def _escape(value: str) -> str:
    text = "".join(f"\\{character}" if character in _ESCAPED else character for character in value)
    if text.startswith(("#", " ")):
        text = f"\\{text}"
    return f"{text[:-1]}\\ " if text.endswith(" ") and len(value) > 1 else text


def _alternative_names(names: Sequence[tuple[str, Any]]) -> Iterator[str]:
    for kind, value in names:
        if isinstance(value, str):  # a directory name is a tuple
            yield f"{_KINDS.get(kind, kind)}:{quote(value, safe=_IN_LIST)}"
