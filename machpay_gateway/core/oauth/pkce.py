"""PKCE: proof that a code is redeemed by the client that requested it (RFC 7636)."""

import hmac
import re
from base64 import urlsafe_b64encode
from hashlib import sha256

METHOD = "S256"  # `plain` does not help against an attacker who saw the request, and is refused (RFC 9700 §2.1.1)
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)  # of a SHA-256 digest, without padding
_VERIFIER = re.compile(r"[A-Za-z0-9\-._~]{43,128}", re.ASCII)  # §4.1


def is_challenge(text: str) -> bool:
    """Tell whether *text* is well-formed as a challenge."""
    return _CHALLENGE.fullmatch(text) is not None


def is_verifier(text: str) -> bool:
    """Tell whether *text* is well-formed as a verifier."""
    return _VERIFIER.fullmatch(text) is not None


def challenge_of(verifier: str) -> str:
    """Return the challenge for *verifier* (§4.2)."""
    return urlsafe_b64encode(sha256(verifier.encode("ascii")).digest()).rstrip(b"=").decode()


def proves(verifier: str, challenge: str) -> bool:
    """Tell whether *verifier* matches *challenge*, in constant time."""
    return is_verifier(verifier) and hmac.compare_digest(challenge_of(verifier), challenge)
