"""What each upstream serves, and which scopes a caller needs there: one table for servers, policy and the check."""

from typing import NamedTuple

from machpay_gateway import Route


class Handler(NamedTuple):
    """A handler by its *name*, which it answers with. *sample* is a path that it serves as it is written."""

    name: str
    template: str
    sample: str
    scopes: frozenset[str]

    @property
    def route(self) -> Route:
        """The rule for it; without scopes it is public."""
        return Route(f"GET {self.template}", scopes=sorted(self.scopes), public=not self.scopes)


# The more specific ones first, as applications have them.
HANDLERS = tuple(
    Handler(name, template, sample, frozenset(scopes))
    for name, template, sample, scopes in (
        ("account", "/v1/account", "/v1/account", ["account:read"]),
        ("balance", "/v1/getBalance", "/v1/getBalance", ["account:read"]),
        ("admin", "/v1/admin/keys", "/v1/admin/keys", ["admin"]),
        ("secret", "/v1/skills/secret", "/v1/skills/secret", ["admin", "skills:list"]),
        ("skills", "/v1/skills", "/v1/skills", ["skills:list"]),
        ("skill", "/v1/skills/{id}", "/v1/skills/abc", ["skills:list"]),
        ("internal", "/docs/internal", "/docs/internal", ["docs:internal"]),
        ("docs", "/docs/{rest:path}", "/docs/guide/intro", []),
    )
)
BY_NAME = {handler.name: handler for handler in HANDLERS}
SCOPES = frozenset(scope for handler in HANDLERS for scope in handler.scopes)
# What callers hold: nothing, one scope each, and all of them.
HELD = (frozenset[str](), *(frozenset({scope}) for scope in sorted(SCOPES)), SCOPES)
