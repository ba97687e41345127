"""What a caller presents: from the Authorization header to a credential that is worth looking up.

Nothing here does I/O, and what does not pass here never causes any: a mistyped or invented key is refused by its
shape and checksum alone.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.keys.key import secret_digest, secret_environment

MAX_AUTHORIZATION_BYTES = 16 * 1024  # past this the header itself is refused; a token may have half of it
PROOF_ALGORITHMS = ("ES256", "ES384", "ES512", "Ed25519", "EdDSA", "RS256", "PS256")  # of DPoP
_TOKEN68 = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")  # RFC 9110 §11.2
_SCHEME = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?: +(.*))?", re.DOTALL)
_JWT_DOTS = 2


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An Authorization that cannot be acted on: the *reason* for the caller, *detail* for the log."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A secret of ours with a right checksum; whether it exists is the store's to say."""

    environment: str
    digest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignedToken:
    """Something shaped like a JWT: three parts; whether it is one is the verifier's to say."""

    token: bytes = field(repr=False)
    digest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Proof:
    """A good proof of possession (RFC 9449).

    It has the thumbprint of its *key* (RFC 7638), and its *name*, under which it must not come again.
    """

    key: str
    name: str


@dataclass(frozen=True, slots=True)
class BoundToken:
    """A token that is presented with proof of the key that it is bound to: the scheme DPoP (RFC 9449 §7.1)."""

    token: bytes = field(repr=False)


def parse_authorization(values: Sequence[bytes]) -> bytes | BoundToken | Unreadable:
    """Return the token in the Authorization header's *values*, a bearer's as bytes, or why there is none to act on."""
    if len(values) != 1:
        if not values:
            return Unreadable(Reason.MISSING_CREDENTIALS, "no Authorization header")
        return Unreadable(Reason.MALFORMED_REQUEST, "more than one Authorization header")
    value = values[0]
    if len(value) > MAX_AUTHORIZATION_BYTES:
        return Unreadable(Reason.MALFORMED_REQUEST, f"Authorization is over {MAX_AUTHORIZATION_BYTES} bytes")
    token = value.removeprefix(b"Bearer ")
    if len(token) < len(value) and token[:1] != b" ":
        return token
    return _parse_unusual(value)


def _parse_unusual(value: bytes) -> bytes | BoundToken | Unreadable:
    if not value.strip():
        return Unreadable(Reason.MISSING_CREDENTIALS, "empty Authorization header")
    match = _SCHEME.fullmatch(value)
    if match is None:
        return Unreadable(Reason.MALFORMED_REQUEST, "Authorization is not a scheme and a token")
    if match[1].lower() == b"dpop":
        return BoundToken(match[2] or b"")
    if match[1].lower() != b"bearer":
        # RFC 6750 §3.1 counts an unsupported method as no authentication information: the challenge alone.
        return Unreadable(Reason.MISSING_CREDENTIALS, "unsupported authentication scheme")
    return match[2] or b""


def credential_of(token: bytes) -> ApiKey | SignedToken | Unreadable:
    """Return what the bearer *token* is by its shape, or why it cannot be anything of ours."""
    if not _TOKEN68.fullmatch(token):
        return Unreadable(Reason.MALFORMED_REQUEST, "the bearer token is not a token68")
    if token.startswith(b"sk_"):
        if environment := secret_environment(token):
            return ApiKey(environment, secret_digest(token))
        return Unreadable(Reason.INVALID_CREDENTIALS, "key with a wrong shape or checksum")
    if token.count(b".") == _JWT_DOTS:
        return SignedToken(token, secret_digest(token))
    return Unreadable(Reason.INVALID_CREDENTIALS, "neither a key nor a signed token")
