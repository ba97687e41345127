"""Reports of leaked secrets, in the format of GitHub's secret scanning partner program.

A report is a JSON array of matches with a signature (`core.jose.scanner`). Without one, anybody who knows a secret
could revoke its key in the scanner's name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import orjson

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.network.url import is_remote, is_trusted_url, without_user

GITHUB_KEYS = "https://api.github.com/meta/public_keys/secret_scanning"
LeakAction = Literal["revoke", "alert"]
ACTIONS: tuple[LeakAction, ...] = ("revoke", "alert")


@dataclass(frozen=True, slots=True)
class LeakSettings:
    """Whose reports are accepted, and how to react. *keys* is a file or an https URL with the scanner's public keys.

    The *action* `revoke` ends a leaked secret at once; `alert` only logs it, also in the audit log. Raises
    ConfigurationError.
    """

    keys: str = GITHUB_KEYS
    action: LeakAction = "revoke"

    def __post_init__(self) -> None:
        keys: object = self.keys  # TOML and untyped callers may pass any type
        if not isinstance(keys, str) or not keys or (is_remote(keys) and not is_trusted_url(keys)):
            source = without_user(str(keys))
            raise ConfigurationError(f"keys cannot be taken from {source!r}; use a file or an https URL")
        if self.action not in ACTIONS:
            raise ConfigurationError(f"action {self.action!r} does not exist: use {' or '.join(ACTIONS)}")


@dataclass(frozen=True, slots=True)
class LeakMatch:
    """A secret that was found in public: at *url*, which may be empty, in a *source* such as `commit`."""

    token: str = field(repr=False)
    kind: str
    url: str
    source: str


def parse_report(report: bytes) -> tuple[LeakMatch, ...] | None:
    """Return the matches of a *report*, or None if it is malformed."""
    try:
        items = orjson.loads(report)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return None
    matches = [_match(item) for item in items]
    return tuple(match for match in matches if match is not None) if None not in matches else None


def _match(item: Mapping[str, object]) -> LeakMatch | None:
    texts = [item.get(name, "") for name in ("token", "type", "url", "source")]
    if not all(isinstance(text, str) for text in texts):
        return None
    return LeakMatch(*map(str, texts))
