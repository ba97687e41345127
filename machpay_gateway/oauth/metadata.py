"""The authorization server's metadata document (RFC 8414)."""

from collections.abc import Mapping
from typing import Any

from machpay_gateway.core.decision.credential import PROOF_ALGORITHMS
from machpay_gateway.core.oauth.client import GRANT_TYPES
from machpay_gateway.core.oauth.pkce import METHOD
from machpay_gateway.core.oauth.settings import AUTHORIZE, INTROSPECT, REGISTER, REVOKE, TOKEN, OAuthSettings
from machpay_gateway.gateway import Gateway
from machpay_gateway.oauth.endpoints import AUTHENTICATION_METHODS

_JWKS = "/.well-known/jwks.json"


def metadata_document(settings: OAuthSettings, gateway: Gateway) -> Mapping[str, Any]:
    """Return the metadata of the authorization server with *settings* (RFC 8414 §2)."""
    return {
        "issuer": settings.issuer,
        "authorization_endpoint": settings.url(AUTHORIZE),
        "token_endpoint": settings.url(TOKEN),
        "revocation_endpoint": settings.url(REVOKE),
        "introspection_endpoint": settings.url(INTROSPECT),
        "jwks_uri": settings.origin + _JWKS,
        "registration_endpoint": None if settings.registration_account is None else settings.url(REGISTER),
        "scopes_supported": sorted(gateway.oauth_clients.grantable),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": list(GRANT_TYPES),
        "token_endpoint_auth_methods_supported": list(AUTHENTICATION_METHODS),
        "revocation_endpoint_auth_methods_supported": list(AUTHENTICATION_METHODS),
        "introspection_endpoint_auth_methods_supported": list(AUTHENTICATION_METHODS[:2]),
        "code_challenge_methods_supported": [METHOD],
        "dpop_signing_alg_values_supported": list(PROOF_ALGORITHMS),
        "authorization_response_iss_parameter_supported": True,
    }
