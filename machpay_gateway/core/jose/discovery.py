"""Discovery of an issuer's keys by its metadata (OpenID Connect Discovery 1.0 §4, RFC 8414 §3).

The metadata is pinned to the issuer: a document that names another one is refused, since it would let that one's keys
sign for this issuer (RFC 8414 §3.3).
"""

from dataclasses import dataclass
from urllib.parse import urlsplit

import orjson

from machpay_gateway.core.network.url import is_trusted_url, without_user

_OPENID, _OAUTH = "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"
_MAX_SHOWN_ISSUER = 200


@dataclass(frozen=True, slots=True)
class KeySetLocation:
    """The URL of an issuer's key set. It may be on another host than the issuer, as Google's is."""

    url: str


def is_discoverable(issuer: str) -> bool:
    """Tell whether *issuer* is a URL that metadata may be fetched from: https, or http on loopback; without a query."""
    return is_trusted_url(issuer) and "?" not in issuer


def metadata_urls(issuer: str) -> tuple[str, str]:
    """Return where the metadata of *issuer* may be: OpenID Connect's path follows the issuer's, OAuth's precedes it."""
    parts = urlsplit(issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    return f"{origin}{path}{_OPENID}", f"{origin}{_OAUTH}{path}"


def key_set_location(document: bytes, issuer: str) -> KeySetLocation | str:
    """Return where the metadata *document* says that the keys of *issuer* are, or why it is refused."""
    try:
        metadata = orjson.loads(document)
    except ValueError:
        return "the metadata is not JSON"
    if not isinstance(metadata, dict):
        return "the metadata is not a JSON object"
    named, url = metadata.get("issuer"), metadata.get("jwks_uri")
    if named != issuer:
        shown = f"{named!r:.{_MAX_SHOWN_ISSUER}}"
        return f"the metadata is of issuer {shown}: where that is the `iss` of the tokens, set it as the issuer"
    if not isinstance(url, str):
        return "the metadata has no jwks_uri; set jwks"
    # An issuer elsewhere must not make the gateway fetch from this machine.
    if not is_trusted_url(url) or (issuer.startswith("https:") and not url.startswith("https:")):
        return f"the metadata names keys at {without_user(url)[:_MAX_SHOWN_ISSUER]!r}, which is not an https URL"
    return KeySetLocation(url)
