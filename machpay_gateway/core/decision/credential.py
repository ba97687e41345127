"""Credentials: from the Authorization header to an API key or token that is worth a look-up.

Nothing here does I/O, and what fails here causes none: a mistyped or invented key is refused by its shape and checksum.
"""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Sequence
from dataclasses import dataclass, field

from machpay_gateway.core.brand import MACHPAY, Brand
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.keys.key import has_secret_format, secret_digest, secret_environment

MAX_AUTHORIZATION_BYTES = 16 * 1024  # of the header; a token may have half of it
PROOF_ALGORITHMS = ("ES256", "ES384", "ES512", "Ed25519", "EdDSA", "RS256", "PS256")  # of DPoP
_TOKEN68 = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")  # RFC 9110 §11.2
_SCHEME = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?: +(.*))?", re.DOTALL)
_JWT_DOTS = 2
_VISIBLE = re.compile(rb"[ -~]+")
# What `credential_reader` returns for different credentials in one request. No header can have this value.
CONFLICTING = b"\0conflicting"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An Authorization header without a usable credential: the *reason* for the caller, *detail* for the log."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A secret with a right checksum; the store knows whether it exists."""

    environment: str
    digest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignedToken:
    """A token in the shape of a JWT, three parts; a verifier decides whether it is valid."""

    token: bytes = field(repr=False)
    digest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CustomCredential:
    """Visible ASCII in another shape; only the application can tell whose it is."""

    text: str = field(repr=False)
    digest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Proof:
    """A valid proof of possession (RFC 9449).

    *key* is the thumbprint of its key (RFC 7638). *name* identifies the proof, which must not be used again.
    """

    key: str
    name: str


@dataclass(frozen=True, slots=True)
class BoundToken:
    """A token in the DPoP scheme, which comes with a proof of the key it is bound to (RFC 9449 §7.1)."""

    token: bytes = field(repr=False)


def parse_authorization(values: Sequence[bytes]) -> bytes | BoundToken | Unreadable:
    """Return the token in the Authorization header's *values*, a bearer token as bytes, or why there is none."""
    if len(values) != 1:
        if not values:
            return Unreadable(Reason.MISSING_CREDENTIALS, "no Authorization header")
        return Unreadable(Reason.MALFORMED_REQUEST, "more than one value in a place for credentials")
    value = values[0]
    if len(value) > MAX_AUTHORIZATION_BYTES:
        return Unreadable(Reason.MALFORMED_REQUEST, f"Authorization is over {MAX_AUTHORIZATION_BYTES} bytes")
    token = value.removeprefix(b"Bearer ")
    if len(token) < len(value) and token.strip() == token:  # as fast as a look at its first byte alone
        return token
    # RFC 9110 §5.5: whitespace around a value is no part of it. Some servers leave what is behind it.
    return _parse_scheme(value.strip(b" \t"))


def _parse_scheme(value: bytes) -> bytes | BoundToken | Unreadable:
    if not value:
        return Unreadable(Reason.MISSING_CREDENTIALS, "empty Authorization header")
    match = _SCHEME.fullmatch(value)
    if match is None:
        if value == CONFLICTING:
            return Unreadable(Reason.CONFLICTING_CREDENTIALS, "different credentials in two places")
        return Unreadable(Reason.MALFORMED_REQUEST, "Authorization is not a scheme and a token")
    scheme = match[1].lower()
    if scheme == b"dpop":
        return BoundToken(match[2] or b"")
    if scheme == b"basic":
        return _parse_basic(match[2] or b"")
    if scheme != b"bearer":
        # RFC 6750 §3.1 counts an unsupported method as no authentication information: the challenge alone.
        return Unreadable(Reason.MISSING_CREDENTIALS, "unsupported authentication scheme")
    return match[2] or b""


def _parse_basic(encoded: bytes) -> bytes | Unreadable:
    """Return the key or token that is the user name of Basic credentials (RFC 7617), as `curl -u KEY:` sends it."""
    try:
        user, colon, password = b64decode(encoded, validate=True).partition(b":")
    except Base64Error:
        return Unreadable(Reason.MISSING_CREDENTIALS, "Basic credentials that cannot be decoded")
    if not user or not colon or password:
        # Of another system, such as a web server in front. As with any unsupported method: the challenge alone.
        return Unreadable(Reason.MISSING_CREDENTIALS, "Basic credentials that are not a key without a password")
    return user


def custom_credential_of(token: bytes, brand: Brand) -> ApiKey | SignedToken | CustomCredential | Unreadable:
    """Return the credential that *token* is by its shape where an application identifies credentials of its own.

    A secret of ours with a wrong checksum is mistyped, and nobody else's.
    """
    credential = credential_of(token, brand)
    is_ours = not isinstance(credential, Unreadable) or has_secret_format(token, brand)
    if is_ours or not _VISIBLE.fullmatch(token):
        return credential
    return CustomCredential(token.decode("ascii"), secret_digest(token))


def credential_of(token: bytes, brand: Brand = MACHPAY) -> ApiKey | SignedToken | Unreadable:
    """Return the credential that the bearer *token* is by its shape, or why it can be none.

    Secrets are those that *brand* accepts.
    """
    if not _TOKEN68.fullmatch(token):
        return Unreadable(Reason.MALFORMED_REQUEST, "the bearer token is not a token68")
    if environment := secret_environment(token, brand):
        return ApiKey(environment, secret_digest(token))
    if token.startswith(b"sk_") or has_secret_format(token, brand):
        return Unreadable(Reason.INVALID_CREDENTIALS, "key with a wrong shape or checksum")
    if token.count(b".") == _JWT_DOTS:
        return SignedToken(token, secret_digest(token))
    return Unreadable(Reason.INVALID_CREDENTIALS, "neither a key nor a signed token")
