"""What the audit log's rows say to people: actions in words, and what changed, name by name."""

from collections.abc import Mapping
from typing import NamedTuple

import orjson

from machpay_gateway.core.keys.audit import AuditRow

# Every action that an account's log may hold; the beginnings first, which stand for all that begin so.
KINDS: Mapping[str, str] = {
    "key.": "Keys",
    "client.": "Apps",
    "grant.": "Grants",
    "user.": "Users",
    "account.": "The account",
    "console.": "The Console",
}
ACTIONS: Mapping[str, str] = {
    "key.create": "Key created",
    "key.update": "Key changed",
    "key.rotate": "Key rotated",
    "key.end_grace": "Key’s previous secret ended",
    "key.revoke": "Key revoked",
    "key.leaked": "Key’s secret found in the open",
    "client.create": "App created",
    "client.update": "App changed",
    "client.rotate_secret": "App’s secret rotated",
    "client.delete": "App deleted",
    "client.remove_unused": "Unused apps removed",
    "grant.create": "Grant given",
    "grant.extend": "Grant extended",
    "grant.end_family": "Grant’s sign-in ended",
    "grant.revoke": "Grant ended",
    "user.create": "User created",
    "user.set_password": "User’s password set",
    "user.set_role": "User’s role changed",
    "user.sign_in": "User signed in",
    "user.sign_in_failed": "Sign-in failed",
    "user.sign_in_throttled": "Sign-in attempts throttled",
    "user.sign_out": "User signed out",
    "user.make_pass": "Sign-in pass made",
    "user.disable": "User shut out",
    "user.enable": "User let in again",
    "account.create": "Account created",
    "account.set_tier": "Account’s tier changed",
    "console.refused": "Console action refused",
}
ACTORS: Mapping[str, str] = {
    "operator": "an operator",
    "application": "the program itself",
    "api_key": "key",
    "session": "session",
    "oauth": "app with a token",
    "jwt": "token of another issuer",
    "scanner": "secret scanner",
    "user": "user",
    "client": "app",
    "anonymous": "somebody who is not signed in",
}
_NAMES: Mapping[str, str] = {
    "allowed_ips": "Allowed IP addresses",
    "alive": "Works",
    "dpop_bound": "DPoP needed",
    "email": "E-mail",
    "has_password": "Has a password",
    "redirect_uris": "Redirect URIs",
    "require_pkce": "PKCE needed",
    "self_registered": "Registered itself",
    "url": "Address",
}


class Difference(NamedTuple):
    """One setting that a change concerns: as it was, None where there was none, and as it is."""

    name: str
    before: str | None
    after: str | None


def action_in_words(action: str) -> str:
    """Return what was done; an action that has no words by its name."""
    return ACTIONS.get(action, action)


def actor_in_words(kind: str) -> str:
    """Return what kind of actor that is."""
    return ACTORS.get(kind, kind)


def differences(row: AuditRow) -> list[Difference]:
    """Return what changed. What is new and empty is left out, as it says nothing."""
    before, after = _read(row.before), _read(row.after)
    if before is None or after is None:  # tampered with, which `audit verify` finds: shown as it is
        return [Difference("As stored", row.before, row.after)]
    names = [*after, *(name for name in before if name not in after)]
    return [
        Difference(name_in_words(name), _told(before, name), _told(after, name))
        for name in names
        if name in before or not _is_empty(after[name])
    ]


def name_in_words(name: str) -> str:
    """Return the name of a setting as people write it."""
    return _NAMES.get(name, name.replace("_", " ").capitalize())


def value_in_words(value: object) -> str:
    """Return a setting's value as people read it."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case str():
            return value or "none"
        case list():
            apart = "; " if any(isinstance(each, dict) for each in value) else ", "
            return apart.join(map(value_in_words, value)) or "none"
        case {"masked": masked, **rest}:
            ends = rest.get("expires_at")
            return f"{masked}, until {ends}" if ends else str(masked)
        case dict():
            return "; ".join(f"{name}: {value_in_words(each)}" for name, each in value.items()) or "none"
    return str(value)


def _read(text: str) -> Mapping[str, object] | None:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _told(state: Mapping[str, object], name: str) -> str | None:
    return value_in_words(state[name]) if name in state else None


def _is_empty(value: object) -> bool:
    return value is None or value in ("", [], {})
