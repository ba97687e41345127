"""What the services on users and OAuth clients need of a store."""

from typing import TYPE_CHECKING

from machpay_gateway.core.errors import ConfigurationError

if TYPE_CHECKING:
    from machpay_gateway.core.oauth.ports import OAuthStore
    from machpay_gateway.core.store import Store


def oauth_of(store: "Store") -> "OAuthStore":
    """Return the records of users and of the authorization server in *store*. Raises ConfigurationError."""
    if store.oauth is None:
        raise ConfigurationError("memory:// has no room for users and apps: use sqlite:// (in memory) instead")
    return store.oauth
