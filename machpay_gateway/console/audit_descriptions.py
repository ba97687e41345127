"""Readable audit log entries: descriptions of actions and actors, and the settings that changed."""

from collections.abc import Mapping
from typing import NamedTuple

import orjson

from machpay_gateway.core.keys.audit import AuditRow

# Categories by the prefix of their actions. `ACTIONS` has every action that an account's log can contain.
CATEGORIES: Mapping[str, str] = {
    "key.": "Keys",
    "client.": "Apps",
    "grant.": "Grants",
    "user.": "Users",
    "account.": "Account",
    "console.": "Console",
}
ACTIONS: Mapping[str, str] = {
    "key.create": "Key created",
    "key.update": "Key updated",
    "key.rotate": "Key rotated",
    "key.end_grace": "Previous secret of key ended",
    "key.revoke": "Key revoked",
    "key.leaked": "Leaked secret of key reported",
    "client.create": "App created",
    "client.update": "App updated",
    "client.rotate_secret": "App secret rotated",
    "client.delete": "App deleted",
    "client.remove_unused": "Unused apps removed",
    "grant.create": "Grant created",
    "grant.extend": "Grant extended",
    "grant.end_family": "Token family of grant revoked",
    "grant.revoke": "Grant revoked",
    "user.create": "User created",
    "user.set_password": "User password changed",
    "user.set_role": "User role changed",
    "user.sign_in": "User signed in",
    "user.sign_in_failed": "Sign-in failed",
    "user.sign_in_throttled": "Sign-in attempts throttled",
    "user.sign_out": "User signed out",
    "user.make_pass": "Sign-in pass created",
    "user.disable": "User disabled",
    "user.enable": "User enabled",
    "account.create": "Account created",
    "account.set_tier": "Account tier changed",
    "console.refused": "Console action refused",
}
ACTORS: Mapping[str, str] = {
    "operator": "operator",
    "application": "system",
    "api_key": "API key",
    "session": "session",
    "oauth": "app with a token",
    "jwt": "token of another issuer",
    "custom": "credential of the application",
    "scanner": "secret scanner",
    "user": "user",
    "client": "app",
    "anonymous": "anonymous",
}
_SETTING_LABELS: Mapping[str, str] = {
    "allowed_ips": "Allowed IP addresses",
    "alive": "Active",
    "dpop_bound": "DPoP required",
    "email": "Email",
    "has_password": "Has a password",
    "redirect_uris": "Redirect URIs",
    "require_pkce": "PKCE required",
    "self_registered": "Self-registered",
    "url": "URL",
}


class SettingChange(NamedTuple):
    """The values of a setting *before* and *after* a change. A value is None where the setting did not exist."""

    label: str
    before: str | None
    after: str | None


def describe_action(action: str) -> str:
    """Return the description of *action*, or *action* when it has none."""
    return ACTIONS.get(action, action)


def describe_actor(kind: str) -> str:
    """Return the description of this *kind* of actor, or *kind* when it has none."""
    return ACTORS.get(kind, kind)


def setting_changes(row: AuditRow) -> list[SettingChange]:
    """Return the settings that *row* changed, except new settings without a value."""
    before, after = _parse_state(row.before), _parse_state(row.after)
    if before is None or after is None:  # the row was tampered with; `audit verify` reports it
        return [SettingChange("As stored", row.before, row.after)]
    names = [*after, *(name for name in before if name not in after)]
    return [
        SettingChange(setting_label(name), _format_setting(before, name), _format_setting(after, name))
        for name in names
        if name in before or not _is_empty(after[name])
    ]


def setting_label(name: str) -> str:
    """Return the label of the setting *name*."""
    return _SETTING_LABELS.get(name, name.replace("_", " ").capitalize())


def format_value(value: object) -> str:
    """Return the *value* of a setting as text."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case str():
            return value or "none"
        case list():
            separator = "; " if any(isinstance(item, dict) for item in value) else ", "
            return separator.join(map(format_value, value)) or "none"
        case {"masked": masked, **rest}:
            expires_at = rest.get("expires_at")
            return f"{masked}, until {expires_at}" if expires_at else str(masked)
        case dict():
            return "; ".join(f"{name}: {format_value(item)}" for name, item in value.items()) or "none"
    return str(value)


def _parse_state(text: str) -> Mapping[str, object] | None:
    try:
        state = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return state if isinstance(state, dict) else None


def _format_setting(state: Mapping[str, object], name: str) -> str | None:
    return format_value(state[name]) if name in state else None


def _is_empty(value: object) -> bool:
    return value is None or value in ("", [], {})
