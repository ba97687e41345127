"""Descriptions of scopes for people: on the consent page, and in the Console."""

from collections.abc import Mapping

# As in the public guide.
_DESCRIPTIONS: Mapping[str, str] = {
    "skills:execute": "Execute skills",
    "skills:list": "List available skills",
    "account:read": "View balance and history",
    "account:write": "Add funds, manage payment methods",
    "webhooks:manage": "Create and manage webhooks",
}


def describe_scope(name: str, descriptions: Mapping[str, str]) -> str:
    """Return what the scope *name* allows, by *descriptions* in the settings; the name itself if nothing says it."""
    return descriptions.get(name) or _DESCRIPTIONS.get(name, name)
