"""What scopes mean, in the words that users consent to."""

from collections.abc import Mapping

# The guide's own words; a scope that is not among them is shown by its name alone.
_WORDS: Mapping[str, str] = {
    "skills:execute": "Execute skills",
    "skills:list": "List available skills",
    "account:read": "View balance and history",
    "account:write": "Add funds, manage payment methods",
    "webhooks:manage": "Create and manage webhooks",
}


def describe_scope(name: str) -> str:
    """Return what the scope *name* allows, in words."""
    return _WORDS.get(name, name)
