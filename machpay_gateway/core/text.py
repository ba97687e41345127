"""How values are written in messages, and times in documents: never with a secret in them."""

import re
from contextlib import suppress
from datetime import UTC, datetime

from machpay_gateway.core.errors import InputError

# Of keys, and of what `core.oauth.opaque_token` makes for apps.
_SECRETS = re.compile(r"(sk_(?:live|test)_|(?:ac|bs|cs|rt)_mp1_)[0-9A-Za-z_]{8,}")


# Of issuers and ours: what is signed is JSON in base64url between two others, and what is encrypted has five parts.
# Each begins where nothing of it stands before, or a long path would be read again from each of its letters.
_TOKENS = re.compile(
    r"(?<![\w-])(?:([\w-]{3})[\w-]{7,}\.e[wy][\w-]{8,}(?:\.[\w-]*)?|(e[wy][\w-])[\w-]{7,}(?:\.[\w-]*){4})", re.ASCII
)


# RFC 3986 §3.2.1: of a database, of Redis. No other one can begin within what it takes, so that it is as quick.
_PASSWORDS = re.compile(r"(://[^\s/?#:@]*:)[^\s/?#]+(?=@)")


_ESCAPES = re.compile(r"%(?:25)*([2-7][0-9A-Fa-f])")  # of ASCII that can be seen, however often it was escaped


_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)


_SHOWN = 80  # characters of a wrong value that its error repeats


def quote_value(value: str) -> str:
    """Return *value* in quotes, as an error repeats it: shortened, and with nothing that a terminal would act on."""
    text = mask_secrets(value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…")
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text) + '"'


def format_moment(moment: float) -> str:
    """Return *moment*, seconds since the epoch, as RFC 3339 in UTC; a moment that has no date as its number."""
    try:
        return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return str(moment)


def format_moment_or_none(moment: float | None) -> str | None:
    """Return *moment* as `format_moment` does; None stays None."""
    return None if moment is None else format_moment(moment)


def parse_moment(text: str) -> float:
    """Return the moment that *text* is in RFC 3339 (§5.6), in seconds since the epoch. Raises InputError."""
    # `fromisoformat` reads more than that: dates without a time, weeks, and moments without an offset.
    if _DATE_TIME.fullmatch(text):
        with suppress(ValueError):  # a 31st of February, a leap second
            return datetime.fromisoformat(text.upper()).timestamp()
    raise InputError(f"{quote_value(text)} is not a moment in RFC 3339: write it as in 2030-01-31T00:00:00Z.")


def mask_secrets(text: str) -> str:
    """Return *text* with the secrets in it cut short, tokens and URLs' passwords among them, also escaped ones."""
    plain = _ESCAPES.sub(_unescaped, text) if "%" in text else text
    cut = _PASSWORDS.sub(r"\1…", _TOKENS.sub(r"\1\2…", _SECRETS.sub(r"\1…", plain)))
    return text if cut == plain else cut


def contains_secret(text: str) -> bool:
    """Tell whether there is something in *text* that `mask_secrets` cuts short."""
    return mask_secrets(text) != text


def _unescaped(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16))
