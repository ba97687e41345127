"""Values in messages, with secrets masked, and times in documents."""

import re
from contextlib import suppress
from datetime import UTC, datetime

from machpay_gateway.core.errors import InputError

# API keys, and the tokens of `core.oauth.opaque_token`. Those of other brands are recognized by more of their shape.
_SECRETS = re.compile(
    r"(sk_(?:live|test)_|(?:ac|bs|cs|rt)_mp1_)[0-9A-Za-z_]{8,}|((?:ac|bs|cs|rt)_)[a-z][a-z0-9]{0,15}_[0-9A-Za-z]{16,}"
)
_BRANDED_SECRETS = re.compile(r"([a-z][a-z0-9]{0,15}_(?:live|test)_)[a-z][a-z0-9]{0,15}_[0-9A-Za-z]{16,}")


# JWTs: a signed one has JSON in base64url as the second of three parts, an encrypted one has five parts. The lookbehind
# makes a match start at a word's first letter only; otherwise a long path would be scanned again from every letter.
_TOKENS = re.compile(
    r"(?<![\w-])(?:([\w-]{3})[\w-]{7,}\.e[wy][\w-]{8,}(?:\.[\w-]*)?|(e[wy][\w-])[\w-]{7,}(?:\.[\w-]*){4})", re.ASCII
)


# Passwords in URLs (RFC 3986 §3.2.1). A match contains no start of another one, so that matching takes linear time.
_PASSWORDS = re.compile(r"(://[^\s/?#:@]*:)[^\s/?#]+(?=@)")


_ESCAPES = re.compile(r"%(?:25)*([2-7][0-9A-Fa-f])")  # of printable ASCII, however often it was escaped


_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)


_MAX_QUOTED = 80  # characters of a value in an error message


def quote_value(value: str) -> str:
    """Return *value* in quotes for an error message: shortened, masked, and without control characters."""
    text = mask_secrets(value if len(value) <= _MAX_QUOTED else f"{value[:_MAX_QUOTED]}…")
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text) + '"'


def format_moment(moment: float) -> str:
    """Return *moment*, seconds since the epoch, as RFC 3339 in UTC; as a number if it is no valid date."""
    try:
        return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return str(moment)


def format_moment_or_none(moment: float | None) -> str | None:
    """Return *moment* as `format_moment` does, and None for None."""
    return None if moment is None else format_moment(moment)


def parse_moment(text: str) -> float:
    """Return the moment of *text*, in RFC 3339 (§5.6), in seconds since the epoch. Raises InputError."""
    # `fromisoformat` accepts more than RFC 3339: dates without a time, weeks, and moments without an offset.
    if _DATE_TIME.fullmatch(text):
        with suppress(ValueError):  # a 31st of February, a leap second
            return datetime.fromisoformat(text.upper()).timestamp()
    raise InputError(f"{quote_value(text)} is not a moment in RFC 3339: write it as in 2030-01-31T00:00:00Z.")


def has_secret(text: str) -> bool:
    """Tell whether *text* has an API key or one of our tokens in it."""
    return _SECRETS.search(text) is not None or _BRANDED_SECRETS.search(text) is not None


def mask_secrets(text: str) -> str:
    """Return *text* with its secrets, tokens and passwords in URLs cut short, including percent-encoded ones."""
    plain = _ESCAPES.sub(_unescape, text) if "%" in text else text
    cut = _PASSWORDS.sub(r"\1…", _TOKENS.sub(r"\1\2…", _SECRETS.sub(r"\1\2…", plain)))
    if "_live_" in cut or "_test_" in cut:  # nearly no text has one; the pattern alone is slow
        cut = _BRANDED_SECRETS.sub(r"\1…", cut)
    return text if cut == plain else cut


def contains_secret(text: str) -> bool:
    """Tell whether `mask_secrets` would change *text*."""
    return mask_secrets(text) != text


def _unescape(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16))
