"""Password rules: common passwords, and those made of context words, are refused (ASVS 5.0 6.2.4, 6.2.11).

zxcvbn estimates how many guesses a password takes, offline: it knows 30,000 common passwords, names, words, dates,
keyboard rows and the usual variations. Common passwords that it would rate as unrelated words are listed in
`common_passwords.txt`.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from machpay_gateway.core.accounts.user import validate_password_length
from machpay_gateway.core.errors import InputError

# Where zxcvbn's own scale has its best score. "fortnite1234" takes 1.6 billion guesses, three random words 10^13.
_GUESSES_LOG10 = 10.0
_COMMON = Path(__file__).with_name("common_passwords.txt")
# zxcvbn's work grows with the square of the length: 40 characters take it 10 ms, and are enough to judge by.
_WINDOW = 40
_OURS = ("machpay", "gateway", "console")
_SHORTEST_WORD = 3
_SPELLED_ALIKE = str.maketrans("@403!1|l$5+7", "aaoeiiiisstt")
_WAY_OUT = "Use several words that do not belong together, or a password manager."


def validate_password(password: str, *, email: str = "", account: str = "") -> str:
    """Return *password* of the user of this *email* in an *account* of this name.

    Raises InputError, which does not repeat it. It takes up to 30 ms.
    """
    validate_password_length(password)
    words = sorted(set(_words(email, account)), key=len, reverse=True)
    if _folded(password) in _common() or not any(_is_hard(window) for window in _windows(password)):
        raise InputError(f"The password is too easy to guess: it is common, or close to a common one. {_WAY_OUT}")
    rest = _without(password, words)
    if rest != password and not any(_is_hard(window) for window in _windows(rest)):
        raise InputError(
            "The password is too easy to guess: it is made of your email, your account's name or the name MachPay. "
            f"{_WAY_OUT}"
        )
    return password


@cache
def _common() -> frozenset[str]:
    """Return the listed passwords, as `_folded` spells them."""
    lines = _COMMON.read_text(encoding="ascii").splitlines()
    return frozenset(_folded(line) for line in lines if not line.startswith("#"))


def _is_hard(text: str) -> bool:
    from zxcvbn import zxcvbn  # noqa: PLC0415 - 4 MB of words, which only those need who set a password

    return bool(text) and float(zxcvbn(text)["guesses_log10"]) >= _GUESSES_LOG10


def _windows(password: str) -> Iterable[str]:
    """Return the parts of *password* that are rated: one of them must be hard to guess."""
    return (password,) if len(password) <= _WINDOW else (password[:_WINDOW], password[-_WINDOW:])


def _words(email: str, account: str) -> Iterator[str]:
    """Yield the context words of the user, as `_folded` spells them."""
    for text in (email, account, *_OURS):
        for word in (text, re.sub(r"[\W_]", "", text), *re.split(r"[\W_]+", text)):
            if len(word) >= _SHORTEST_WORD:
                yield _folded(word)


def _without(password: str, words: Iterable[str]) -> str:
    """Return *password* without *words*, forwards and backwards."""
    left, folded = password, _folded(password)
    for word in words:
        for spelling in {word, word[::-1]}:
            while (at := folded.find(spelling)) >= 0:
                left, folded = left[:at] + left[at + len(word) :], folded[:at] + folded[at + len(word) :]
    return left


def _folded(text: str) -> str:
    """Return *text*, at the same length, with variant spellings of a word made equal."""
    return "".join(each.lower()[:1] or each for each in text).translate(_SPELLED_ALIKE)
