"""Users, clients and what came of them, as a store keeps them: each told apart by its number."""

from typing import Any

from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.accounts.user import SignIn, User
from machpay_gateway.core.keys.key import SecretRecord
from machpay_gateway.core.oauth.client import GRANT_TYPES, OAuthClient
from machpay_gateway.core.oauth.grant import AuthorizationCode, Grant, RefreshToken, TokenFamily
from machpay_gateway.core.scopes import Scopes

ACME = Account("acct_acme", "Acme", "standard", 100.0)
GLOBEX = Account("acct_globex", "Globex", "enterprise", 50.0)
BOTH = Scopes(frozenset({"account:read", "skills:execute"}))
READ = Scopes(frozenset({"account:read"}))
NOW = 1000.0


def digest(number: int) -> bytes:
    return bytes([number]) * 32


def user(number: int, **settings: Any) -> User:  # noqa: ANN401 - any of its fields, as below
    given: dict[str, Any] = {"account_id": ACME.id, "email": f"user{number}@example.org", "created_at": NOW + number}
    return User(**({"id": f"user_{number}"} | given | settings))


def sign_in(number: int, user_id: str, **settings: Any) -> SignIn:  # noqa: ANN401 - as above
    given: dict[str, Any] = {"user_id": user_id, "created_at": NOW, "expires_at": NOW + 100, "address": "192.0.2.7"}
    return SignIn(**({"digest": digest(number)} | given | settings))


def client(number: int, *, account: Account = ACME, **settings: Any) -> OAuthClient:  # noqa: ANN401 - as above
    environment = settings.get("environment", "live")
    given: dict[str, Any] = {
        "id": f"app_{number:03}",
        "account_id": account.id,
        "name": f"App {number}",
        "environment": "live",
        "tier": account.tier if environment == "live" else "test",
        "redirect_uris": ("https://app.example.org/cb",),
        "scopes": BOTH,
        "grant_types": GRANT_TYPES,
        "created_at": NOW,
        "secrets": (SecretRecord(digest(number), "cs_mp1_…0001", NOW),),
    }
    return OAuthClient(**(given | settings))


def grant(number: int, of: OAuthClient, holder: User | None, **settings: Any) -> Grant:  # noqa: ANN401 - as above
    given: dict[str, Any] = {
        "id": f"grant_{number}",
        "client_id": of.id,
        "user_id": None if holder is None else holder.id,
        "account_id": of.account_id,
        "environment": of.environment,
        "tier": of.tier,
        "account_tier": of.tier,
        "scopes": BOTH,
        "created_at": NOW + number,
    }
    return Grant(**(given | settings))


def code(number: int, of: Grant, **settings: Any) -> AuthorizationCode:  # noqa: ANN401 - as above
    given: dict[str, Any] = {
        "digest": digest(number),
        "family_id": f"family_{number}",
        "grant_id": of.id,
        "client_id": of.client_id,
        "redirect_uri": "https://app.example.org/cb",
        "has_redirect": True,
        "scopes": READ,
        "resources": ("https://api.example.com", "https://files.example.com"),
        "challenge": "c" * 43,
        "created_at": NOW,
        "expires_at": NOW + 60,
    }
    return AuthorizationCode(**(given | settings))


def family(number: int, of: Grant, **settings: Any) -> TokenFamily:  # noqa: ANN401 - as above
    given: dict[str, Any] = {
        "id": f"family_{number}",
        "grant_id": of.id,
        "client_id": of.client_id,
        "scopes": READ,
        "resources": ("https://api.example.com",),
        "created_at": NOW,
        "expires_at": NOW + 1_000_000,
    }
    return TokenFamily(**(given | settings))


def token(number: int, of: TokenFamily) -> RefreshToken:
    return RefreshToken(digest(number), of.id, NOW, NOW + 10_000)
