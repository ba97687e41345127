"""The names under which the gateway appears: in secrets, challenges, problems, header fields and pages."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from machpay_gateway.core.errors import ConfigurationError

_SECRET_PART = re.compile(r"[a-z][a-z0-9]{0,15}")
_HEADER_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9]*(-[A-Za-z0-9]+)*-")
_REALM = re.compile(r"[ !#-\[\]-~]{1,64}")  # in a quoted-string without escapes (RFC 9110 §5.6.4)
_PATH = re.compile(r"/[A-Za-z0-9._~-]+/")
_MAX_NAME = 64  # characters
_MAX_HEADER_PREFIX = 32
# Names that these would turn into fields of HTTP, or of proxies, that upstreams read.
_TAKEN_PREFIXES = ("x-", "x-forwarded-", "x-real-", "x-request-", "content-", "accept-", "proxy-", "sec-", "if-")


@dataclass(frozen=True, slots=True)
class Brand:
    """Names that callers and users see.

    New secrets are `{prefix}_live_{tag}_…`. Those of MachPay stay valid, and those of *earlier* brands, which are
    written as in `acme_ac1`. *realm* is in WWW-Authenticate (RFC 9110 §11.5). *problem_base* is what the `type` of a
    problem begins with (RFC 9457 §3.1.1): a path, where the gateway serves a page for each problem, or a URL, where it
    serves none. The names of identity header fields begin with *header_prefix*. *name* is on pages. Raises
    ConfigurationError.
    """

    prefix: str = "sk"
    tag: str = "mp1"
    realm: str = "machpay"
    problem_base: str = "/problems/"
    header_prefix: str = "X-MachPay-"
    name: str = "MachPay"
    earlier: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "earlier", _validate_earlier(self.earlier))
        for name, is_valid, rule in _RULES:
            value: object = getattr(self, name)  # TOML and untyped callers may pass any type
            if not isinstance(value, str):
                raise ConfigurationError(f"{name} {value!r} is not text")
            if not is_valid(value):
                raise ConfigurationError(f"{name} {value!r} {rule}")

    def problem_type(self, code: str) -> str:
        """Return the URI reference that identifies the problem *code*."""
        return self.problem_base + code

    @property
    def accepted_secrets(self) -> tuple[tuple[str, str], ...]:
        """The prefix and tag of each kind of secret that is accepted."""
        return ((self.prefix, self.tag), ("sk", "mp1"), *((prefix, tag) for prefix, tag in map(_parts, self.earlier)))

    @property
    def serves_problems(self) -> bool:
        """Whether the pages of problems are the gateway's own."""
        return self.problem_base.startswith("/")

    @property
    def assertion_header(self) -> str:
        """The name of the header field with a signed assertion."""
        return f"{self.header_prefix}Assertion"


def _parts(text: str) -> tuple[str, str]:
    prefix, _, tag = text.partition("_")
    return prefix, tag


def _validate_earlier(setting: object) -> tuple[str, ...]:
    names = setting.split(",") if isinstance(setting, str) else setting
    if not isinstance(names, list | tuple):
        raise ConfigurationError(f"earlier {setting!r} is not a list of brands, each as in acme_ac1")
    stripped = tuple(str(name).strip() for name in names if str(name).strip())
    for name in stripped:
        if not all(map(_SECRET_PART.fullmatch, _parts(name))):
            raise ConfigurationError(f"earlier {name!r} is not a prefix and a tag, as in acme_ac1")
    return stripped


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    is_plain = text.isascii() and text.isprintable() and not any(character in text for character in ' "<>\\^`{|}')
    return is_plain and parts.scheme == "https" and bool(parts.hostname) and text.endswith("/")


def _is_header_prefix(text: str) -> bool:
    is_own = text.lower() not in _TAKEN_PREFIXES
    return is_own and len(text) <= _MAX_HEADER_PREFIX and _HEADER_PREFIX.fullmatch(text) is not None


_PART_RULE = "cannot be part of a secret: use 1 to 16 lower-case letters and digits, a letter first"
_RULES: tuple[tuple[str, Callable[[str], object], str], ...] = (
    ("prefix", _SECRET_PART.fullmatch, _PART_RULE),
    ("tag", _SECRET_PART.fullmatch, _PART_RULE),
    ("realm", _REALM.fullmatch, "is not 1 to 64 characters of ASCII without quotes"),
    (
        "problem_base",
        lambda text: _PATH.fullmatch(text) or _is_url(text),
        "is neither a path of one segment, as in /problems/, nor an https URL that ends in a slash",
    ),
    ("header_prefix", _is_header_prefix, "is not the start of header names of your own: write it as in X-Acme-"),
    (
        "name",
        lambda text: 0 < len(text) <= _MAX_NAME and text.isprintable(),
        f"is not 1 to {_MAX_NAME} printable characters",
    ),
)
MACHPAY = Brand()
