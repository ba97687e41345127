"""Descriptions of scopes for the consent page."""

from collections.abc import Mapping

# As in the public guide. Other scopes are displayed by name.
_DESCRIPTIONS: Mapping[str, str] = {
    "skills:execute": "Execute skills",
    "skills:list": "List available skills",
    "account:read": "View balance and history",
    "account:write": "Add funds, manage payment methods",
    "webhooks:manage": "Create and manage webhooks",
}


def describe_scope(name: str) -> str:
    """Return the description of the scope *name*; the name itself for a scope without one."""
    return _DESCRIPTIONS.get(name, name)
