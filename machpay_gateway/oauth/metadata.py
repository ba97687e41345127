"""What there is, for apps that ask (RFC 8414), and for those who found out by a refusal (RFC 9728)."""

from collections.abc import Mapping
from typing import Any

from machpay_gateway.core.decision.credential import PROOF_ALGORITHMS
from machpay_gateway.core.oauth.client import GRANT_TYPES
from machpay_gateway.core.oauth.pkce import METHOD
from machpay_gateway.core.oauth.settings import AUTHORIZE, OAuthSettings
from machpay_gateway.gateway import Gateway
from machpay_gateway.oauth.client_authentication import METHODS

TOKEN, REVOKE = "/oauth/token", "/oauth/revoke"
INTROSPECT, REGISTER, JWKS = "/oauth/introspect", "/oauth/register", "/.well-known/jwks.json"
WELL_KNOWN = "/.well-known/oauth-authorization-server"


def metadata(authority: OAuthSettings, gateway: Gateway) -> Mapping[str, Any]:
    """Return the metadata of *authority* (RFC 8414 §2)."""
    return {
        "issuer": authority.issuer,
        "authorization_endpoint": authority.url(AUTHORIZE),
        "token_endpoint": authority.url(TOKEN),
        "revocation_endpoint": authority.url(REVOKE),
        "introspection_endpoint": authority.url(INTROSPECT),
        "jwks_uri": authority.origin + JWKS,
        "registration_endpoint": None if authority.registration_account is None else authority.url(REGISTER),
        "scopes_supported": sorted(gateway.oauth_clients.grantable),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": list(GRANT_TYPES),
        "token_endpoint_auth_methods_supported": list(METHODS),
        "revocation_endpoint_auth_methods_supported": list(METHODS),
        "introspection_endpoint_auth_methods_supported": list(METHODS[:2]),
        "code_challenge_methods_supported": [METHOD],
        "dpop_signing_alg_values_supported": list(PROOF_ALGORITHMS),
        "authorization_response_iss_parameter_supported": True,
    }
