"""The `X-MachPay-*` header fields, which tell an upstream who is calling; a brand may have another prefix.

Callers' own fields of these names are dropped on every route, so that upstreams can trust them.
"""

from functools import lru_cache
from urllib.parse import quote

from machpay_gateway.core.brand import MACHPAY
from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.network.trusted_headers import hyphenate

_UNBRANDED = MACHPAY.header_prefix.lower()  # of an upstream from before the brand
_VISIBLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


@lru_cache(maxsize=4096)  # keyed by the principal, which is a new object after each change of its record
def identity_fields(principal: Principal, prefix: str) -> tuple[tuple[str, str], ...]:
    """Return name and value of each field about *principal*; names begin with *prefix*.

    Key-Id is for API keys and their sessions, Client for OAuth clients, and Account for credentials that the gateway
    issued and tokens whose issuer names one. Only the subject and the account of a token can hold anything but visible
    ASCII; they are percent-encoded, because RFC 9110 §5.5 defines no encoding for other bytes.
    """
    fields = {
        "Key-Id": principal.key_id,
        "Client": principal.client_id,
        "Account": principal.account_id,
        "Subject": principal.id,
        "Scopes": str(principal.scopes),
        "Environment": principal.environment,
        "Tier": principal.tier,
    }
    return tuple((prefix + name, quote(value, safe=_VISIBLE)) for name, value in fields.items() if value is not None)


def is_identity_name(name: str, prefix: str) -> bool:
    """Tell whether an upstream could read a header's *name* as one of these fields, with *prefix* or without a brand.

    CGI (RFC 3875 §4.1.18) and its descendants, such as WSGI, read `X_MachPay_Account` as `X-MachPay-Account`.
    """
    return hyphenate(name).startswith((prefix.lower(), _UNBRANDED))
