"""Verification of DPoP proofs: a token that is bound to a key needs a proof of possession (RFC 9449)."""

import hmac
from base64 import urlsafe_b64encode
from hashlib import sha256
from urllib.parse import urlsplit

from machpay_gateway.core.decision.credential import PROOF_ALGORITHMS, Proof
from machpay_gateway.core.jose.claims import numeric_date
from machpay_gateway.core.jose.compact import CompactToken, parse_compact
from machpay_gateway.core.jose.token import is_signed_by, key_of_proof

TYPE = "dpop+jwt"
FRESH_SECONDS = 60.0  # §11.1: a short time, which also allows for different clocks
_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_ID = 256


def verify_proof(values: tuple[bytes, ...], *, method: str, url: str, now: float, token: bytes | None) -> Proof | str:
    """Return the proof in the DPoP header's *values* if it is valid for this request (§4.3), else why not, for the log.

    *token* is the access token of the request, None at the token endpoint.
    """
    if len(values) != 1:
        return "there is more than one DPoP header, or none"
    compact = parse_compact(values[0].strip(b" \t"))
    if isinstance(compact, str):
        return f"proof: {compact}"
    if compact.type != TYPE or compact.algorithm not in PROOF_ALGORITHMS:
        return "proof: typ or alg is not accepted"
    public_key = key_of_proof(compact.header.get("jwk"), (compact.algorithm,))
    if isinstance(public_key, str):
        return f"proof: {public_key}"
    key, thumbprint = public_key
    if error := _claims_error(compact, method, url, now, token):
        return f"proof: {error}"
    if not is_signed_by(compact, [key]):
        return "proof: wrong signature"
    name = sha256(f"{thumbprint}\n{compact.claims['jti']}".encode()).hexdigest()
    return Proof(thumbprint, name)


def _claims_error(dpop_proof: CompactToken, method: str, url: str, now: float, token: bytes | None) -> str | None:
    claims = dpop_proof.claims
    name, issued_at = claims.get("jti"), numeric_date(claims.get("iat"))
    if not isinstance(name, str) or not 1 <= len(name) <= _MAX_ID:
        return f"jti is not a text of 1 to {_MAX_ID} characters"
    if claims.get("htm") != method:
        return "htm is another method"
    if _comparable(claims.get("htu")) != _comparable(url):
        return "htu is another address"
    if issued_at is None or abs(now - issued_at) > FRESH_SECONDS:
        return "iat is not now"
    return None if token is None else _token_hash_error(claims.get("ath"), token)


def _token_hash_error(ath: object, token: bytes) -> str | None:
    expected = urlsafe_b64encode(sha256(token).digest()).rstrip(b"=")
    is_match = isinstance(ath, str) and hmac.compare_digest(ath.encode(errors="replace"), expected)
    return None if is_match else "ath is of another token"


def _comparable(url: object) -> tuple[str, str, int, str] | None:
    """Return *url* as RFC 3986 §6.2.2 and §6.2.3 compare it, without query and fragment (§4.3)."""
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError:
        return None
    return (parts.scheme, parts.hostname, port, parts.path or "/") if parts.hostname else None
