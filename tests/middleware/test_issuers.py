"""docs/issuers.md: each of its settings accepts tokens of that issuer's shape, and refuses its tokens for others."""

import re
import time
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from joserfc.jwk import RSAKey
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from tests.gateways import Guarded, guarded
from tests.issuers import IssuerServer, certificate, issuer_server, tls_of

PAGE = Path(__file__).parent.parent.parent / "docs" / "issuers.md"
STRANGER = RSAKey.generate_key(2048, {"kid": "k1"})
WITHOUT = object()  # of a claim: the token does not have it
USER, TENANT = "3b1f7c11-8d0e-4f0a-9a53-5d2f6b1f7c11", "8eaef023-2b34-4da1-9baa-8bc8c9d6a490"


@dataclass(frozen=True)
class Recipe:
    """The settings at *index* of a *section*, a token's *claims* and its *caller*, and changes that are refused."""

    section: str
    claims: Mapping[str, object]
    caller: tuple[str, list[str], str | None, str | None, str]
    refused: Mapping[str, Mapping[str, object]]
    index: int = 0
    typ: str | None = "JWT"
    also: Mapping[str, tuple[Mapping[str, object], list[str]]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.section}-{self.index}"


BOTH, LIST = ["skills:execute", "skills:list"], ["skills:list"]
ENTRA = {"oid": USER, "sub": "AAAAAAAA", "tid": TENANT, "scp": "Skills.Execute Skills.Read", "ver": "2.0"}
V2, V1 = "6e74172b-be56-4843-9ff4-e66a39bb12e3", "api://6e74172b-be56-4843-9ff4-e66a39bb12e3"
WEB_CLIENT = "2d4d11a2-f814-46a7-890a-274a72a7309e"
KEYCLOAK: dict[str, object] = {
    "sub": USER,
    "typ": "Bearer",
    "azp": "web",
    "aud": ["my.api", "account"],
    "preferred_username": "ada",
    "scope": "openid profile email",
    "realm_access": {"roles": ["offline_access", "operator"]},
    "resource_access": {"account": {"roles": ["manage-account"]}, "my.api": {"roles": ["reader"]}},
}
COGNITO = {
    "sub": USER,
    "client_id": "1example23456789",
    "token_use": "access",
    "username": "ada",
    "scope": "aws.cognito.signin.user.admin skills/execute",
    "cognito:groups": ["gold", "operators"],
}
SERVICE = "batch@acme-prod.iam.gserviceaccount.com"
GITHUB = {
    "aud": "https://api.example.com",
    "sub": "repo:acme/api:environment:production",
    "repository": "acme/api",
    "repository_owner": "acme",
    "repository_id": "74",
    "ref": "refs/heads/main",
    "workflow": "deploy",
    "environment": "production",
}
POD = {"namespace": "prod", "pod": {"name": "b-1"}, "serviceaccount": {"name": "billing", "uid": USER}, "warnafter": 9}
RECIPES = [
    Recipe(
        "Auth0",
        {
            "sub": "auth0|507f1f77bcf86cd799439020",
            "aud": ["https://api.example.com", "https://acme.eu.auth0.com/userinfo"],
            "azp": "my_client_id",
            "scope": "openid profile keys:manage",
            "permissions": ["skills:execute", "skills:list"],
            "org_id": "org_9ybsU1dN2dKfDkBi",
            "https://example.com/plan": "pro",
        },
        ("auth0|507f1f77bcf86cd799439020", BOTH, "org_9ybsU1dN2dKfDkBi", None, "enterprise"),
        {
            "the ID token of a client": {"aud": "my_client_id"},
            "another API of the tenant": {"aud": ["https://other.example.com"]},
            "no organization": {"org_id": WITHOUT},
            "permissions as an object": {"permissions": {"skills:execute": True}},
            "a plan that is a number": {"https://example.com/plan": 1},
        },
        typ="at+jwt",
        also={
            "permissions that are wildcards": ({"permissions": ["skills:*", "*", "skills:list"]}, LIST),
            "a machine without permissions": ({"permissions": WITHOUT, "sub": "abc@clients"}, []),
        },
    ),
    Recipe(
        "Microsoft Entra ID",
        {**ENTRA, "aud": V2, "azp": WEB_CLIENT},
        (USER, BOTH, TENANT, None, "standard"),
        {
            "a token of Microsoft Graph": {"aud": "00000003-0000-0000-c000-000000000000"},
            "a token of version 1": {"aud": V1, "iss": f"https://sts.windows.net/{TENANT}/"},
            "another tenant": {"iss": f"https://login.microsoftonline.com/{USER}/v2.0", "tid": USER},
            "no object id": {"oid": WITHOUT},
            "scopes as a number": {"scp": 5},
        },
        also={
            "an application": ({"scp": WITHOUT, "roles": ["Skills.Read"]}, LIST),
            "permissions of another API": ({"scp": "User.Read skills:execute"}, []),
        },
    ),
    Recipe(
        "Microsoft Entra ID",
        {**ENTRA, "aud": V1, "appid": WEB_CLIENT, "ver": "1.0"},
        (USER, BOTH, TENANT, None, "standard"),
        {
            "another client": {"appid": USER},
            "no client": {"appid": WITHOUT},
            "a token of version 2": {"aud": V2, "appid": WITHOUT, "azp": WEB_CLIENT},
        },
        index=1,
    ),
    Recipe(
        "Keycloak",
        KEYCLOAK,
        (USER, BOTH, None, None, "standard"),
        {
            "without the mapper": {"aud": "account"},
            "an ID token": {"typ": "ID"},
            "a refresh token": {"typ": "Refresh"},
            "roles as a text in place of an object": {"realm_access": "operator"},
            "roles as an object": {"realm_access": {"roles": {"operator": True}}},
            "a role that is a number": {"realm_access": {"roles": ["operator", 1]}},
        },
        also={
            "roles of the client alone": ({"realm_access": WITHOUT}, LIST),
            "roles of another client": (
                {"realm_access": WITHOUT, "resource_access": {"web": {"roles": ["operator"]}}},
                [],
            ),
            "no roles": ({"realm_access": {}, "resource_access": {}}, []),
        },
    ),
    Recipe(
        "Keycloak",
        {**KEYCLOAK, "aud": "account"},
        (USER, BOTH, None, "ada", "standard"),
        {
            "another client": {"azp": "other"},
            "another client that names ours as its audience": {"azp": "other", "aud": "web"},
            "no client": {"azp": WITHOUT},
            "an ID token of the client": {"typ": "ID", "aud": "web"},
            "no name": {"preferred_username": WITHOUT},
        },
        index=1,
    ),
    Recipe(
        "Amazon Cognito",
        COGNITO,
        (USER, BOTH, None, None, "enterprise"),
        {
            "an ID token": {"token_use": "id", "client_id": WITHOUT, "aud": "1example23456789"},
            "an ID token with the claim of an access token": {"token_use": "id"},
            "another app client": {"client_id": "other"},
            "groups as an object": {"cognito:groups": {"operators": 1}},
        },
        typ=None,
        also={"a scope alone": ({"cognito:groups": WITHOUT}, ["skills:execute"])},
    ),
    Recipe(
        "Okta",
        {
            "aud": "api://default",
            "sub": "ada@example.com",
            "cid": "0oa1example2345678d7",
            "uid": "00u1",
            "ver": 1,
            "scp": ["openid", "skills.execute"],
            "groups": ["Everyone", "API Readers"],
        },
        ("ada@example.com", BOTH, None, None, "standard"),
        {
            "the ID token of a client": {"aud": "0oa1example2345678d7"},
            "another client": {"cid": "0oa0other"},
            "scopes with a number": {"scp": ["skills.execute", 1]},
        },
        typ=None,
        also={"a machine": ({"groups": WITHOUT}, ["skills:execute"])},
    ),
    Recipe(
        "Google",
        {"aud": "https://api.example.com", "azp": "117", "sub": "117", "email": SERVICE, "email_verified": True},
        (SERVICE, BOTH, None, None, "standard"),
        {
            "another service": {"aud": "https://other.example.com"},
            "an address that is not verified": {"email_verified": False},
            "verified in text": {"email_verified": "true"},
            "no address": {"email": WITHOUT},
            "an issuer without https": {"iss": "accounts.google.com"},
        },
        also={"a service account that is not listed": ({"email": "other@acme-prod.iam.gserviceaccount.com"}, [])},
    ),
    Recipe(
        "Google",
        {
            "aud": "407408718192.apps.googleusercontent.com",
            "sub": "110",
            "hd": "acme.example",
            "email": "ada@acme.example",
            "email_verified": True,
        },
        ("110", LIST, "acme.example", "ada@acme.example", "standard"),
        {
            "another domain": {"hd": "evil.example"},
            "a consumer account": {"hd": WITHOUT, "email": "ada@gmail.com"},
            "another client": {"aud": "1.apps.googleusercontent.com"},
        },
        index=1,
    ),
    Recipe(
        "GitHub Actions",
        GITHUB,
        ("acme/api", BOTH, "acme", None, "standard"),
        {
            "another repository": {"repository": "evil/api", "repository_owner": "evil"},
            "a repository whose name begins alike": {"repository": "acme/api-fork"},
            "another branch": {"ref": "refs/heads/feature"},
            "a pull request": {"ref": "refs/pull/7/merge"},
            "another audience": {"aud": "https://github.com/acme"},
            "no repository": {"repository": WITHOUT},
        },
        also={
            "staging": ({"environment": "staging"}, LIST),
            "no environment": ({"environment": WITHOUT, "sub": "repo:acme/api:ref:refs/heads/main"}, []),
        },
    ),
    Recipe(
        "Kubernetes",
        {
            "aud": ["https://api.example.com"],
            "sub": "system:serviceaccount:prod:billing",
            "jti": "1",
            "kubernetes.io": POD,
        },
        ("system:serviceaccount:prod:billing", BOTH, "prod", "billing", "standard"),
        {
            "a token for the cluster's own API": {"aud": ["https://kubernetes.default.svc.cluster.local"]},
            "another namespace": {"kubernetes.io": {**POD, "namespace": "dev"}},
            "no namespace": {"kubernetes.io": {"serviceaccount": {"name": "billing"}}},
            "a text in place of the object": {"kubernetes.io": "prod"},
            "a legacy token": {"kubernetes.io": WITHOUT, "kubernetes.io/serviceaccount/namespace": "prod"},
        },
        typ=None,
        also={"an account that is not listed": ({"sub": "system:serviceaccount:prod:web"}, [])},
    ),
]


async def show_caller(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the principal."""
    caller = Request(scope).user
    shown = [caller.id, list(caller.scopes), caller.account_id, caller.owner, caller.tier]
    await JSONResponse(shown)(scope, receive, send)


def settings_in(section: str, index: int) -> str:
    """Return the settings at *index* of a *section* of the page."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[index])


@dataclass(frozen=True)
class Started:
    """A gateway with a recipe's settings, and the issuer on this machine that they name."""

    gateway: Guarded
    server: IssuerServer
    recipe: Recipe
    issuer: str

    def token(self, changes: Mapping[str, object], *, key: RSAKey | None = None, **dates: float) -> str:
        """Return a token of the recipe's shape, with *changes*."""
        now = int(time.time())
        claims: dict[str, Any] = {"iss": self.issuer, "iat": now, "exp": now + 300, **self.recipe.claims, **changes}
        kept = {name: value for name, value in (claims | dates).items() if value is not WITHOUT}
        return self.server.sign(kept, typ=self.recipe.typ, key=key)

    async def call(self, token: str) -> tuple[int, Any]:
        """Return the status and the document of a request with *token*."""
        answer = await self.gateway.client(token).get("/anything")
        return answer.status_code, answer.json()


@asynccontextmanager
async def started(recipe: Recipe, folder: Path) -> AsyncIterator[Started]:
    """Start the issuer of *recipe* on this machine, and a gateway with the settings of the page."""
    text = settings_in(recipe.section, recipe.index)
    pem = certificate(folder) if "ca_file" in text else None
    async with issuer_server(None if pem is None else tls_of(pem)) as server:
        text = re.sub(r'^(issuer = ")https://[^/"]+', rf"\g<1>{server.origin}", text, flags=re.MULTILINE)
        text = re.sub(r'^(jwks = ")https:.*?"', rf'\g<1>{server.origin}/keys"', text, flags=re.MULTILINE)
        text = re.sub(r'^(ca_file = ").*?"', rf'\g<1>{pem}"', text, flags=re.MULTILINE)
        (table,) = tomllib.loads(text)["issuers"]
        server.publish(urlsplit(table["issuer"]).path)
        config = folder / "machpay.toml"
        config.write_text(text)
        async with guarded(show_caller, config=config) as gateway:
            yield Started(gateway, server, recipe, table["issuer"])


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
async def test_the_settings_for_an_issuer_accept_its_tokens_and_no_others(recipe: Recipe, tmp_path: Path) -> None:
    async with started(recipe, tmp_path) as at:
        assert await at.call(at.token({})) == (200, list(recipe.caller))
        for name, (changes, scopes) in recipe.also.items():
            status, caller = await at.call(at.token(changes))
            assert (status, caller[1]) == (200, scopes), name
        now = int(time.time())
        refused = {name: at.token(changes) for name, changes in recipe.refused.items()} | {
            "another key": at.token({}, key=STRANGER),
            "expired": at.token({}, exp=now - 61),
            "a trailing slash more or less": at.token({"iss": at.issuer.rstrip("/") + "/" * (at.issuer[-1] != "/")}),
            "a type of token that is for something else": at.server.sign(
                {"iss": at.issuer, "exp": now + 300, **recipe.claims}, typ="logout+jwt"
            ),
        }
        for name, token in refused.items():
            status, problem = await at.call(token)
            assert (status, problem.get("code")) == (401, "invalid_credentials"), name


def test_every_recipe_of_the_page_is_tested() -> None:
    sections = re.findall(r"^## (.*)$", PAGE.read_text(), re.MULTILINE)
    listed = [(section, index) for section in sections for index in range(_count(section))]
    assert listed == [(recipe.section, recipe.index) for recipe in RECIPES]


def _count(section: str) -> int:
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return len(re.findall(r"^```toml\n", text, re.MULTILINE))
