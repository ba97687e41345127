"""Who an upstream is told is calling: the header fields that are the gateway's alone.

A caller's own fields of these names never pass, whatever the route, so that an upstream may believe them.
"""

from functools import lru_cache
from urllib.parse import quote

from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.network.trusted_headers import hyphenate

PREFIX = "X-MachPay-"
_VISIBLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


@lru_cache(maxsize=4096)  # by the principal itself, which is a new one whenever its record has changed
def identity_fields(principal: Principal) -> tuple[tuple[str, str], ...]:
    """Return name and value of each field that tells an upstream who *principal* is.

    A token has no Key-Id unless it is a session, no Client unless an app has it, and no Account unless its issuer is
    ours. What is not visible ASCII, which only the subject
    of a token may hold, is percent-encoded: RFC 9110 §5.5 leaves other bytes to guessing.
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
    return tuple((PREFIX + name, quote(value, safe=_VISIBLE)) for name, value in fields.items() if value is not None)


def is_identity_name(name: str) -> bool:
    """Tell whether a header's *name* would read as one of ours to an upstream, CGI's way of writing it included.

    CGI (RFC 3875 §4.1.18) and what descends from it, WSGI among them, read `X_MachPay_Account` as `X-MachPay-Account`.
    """
    return hyphenate(name).startswith(PREFIX.lower())
