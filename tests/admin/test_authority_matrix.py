"""Every operation with every kind of credential, on records of itself, a sibling, its parent and another account."""

import json
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from httpx2 import AsyncClient, Response

from machpay_gateway import Issuer, Tier
from machpay_gateway.admin.operations import OPERATIONS
from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.keys.audit import APPLICATION
from machpay_gateway.core.oauth.access_token import TYPE, access_claims
from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.core.oauth.grant import Grant
from machpay_gateway.core.scopes import Scopes
from tests.middleware import test_tokens as issuer
from tests.oauth.harness import AUDIENCE, REDIRECT, Rig, serving_oauth

# What each credential may do to a record that it sees. `held`: if the credential holds the record's scopes, or is it.
# `scope`: the route's scope is missing. Anything but `yes` and `held` is the code of the refusal.
MATRIX = """
credential         list    read    create  change  loosen  secret  end     audit   session whoami
manager            yes     yes     yes     yes     held    held    yes     yes     yes     yes
narrow             yes     yes     yes     yes     held    held    yes     yes     yes     yes
tester             yes     yes     yes     yes     held    held    yes     no      yes     yes
plain              scope   scope   scope   scope   scope   scope   scope   scope   yes     yes
manager's-session  yes     yes     no      no      no      no      no      yes     no      yes
narrow's-session   yes     yes     no      no      no      no      no      yes     no      yes
tester's-session   yes     yes     no      no      no      no      no      no      no      yes
plain's-session    scope   scope   scope   scope   scope   scope   scope   scope   no      yes
user-token         scope   scope   scope   scope   scope   scope   scope   scope   no      yes
user-token+scope   yes     yes     no      no      no      no      no      yes     no      yes
client-token       scope   scope   scope   scope   scope   scope   scope   scope   no      yes
client-token+scope yes     yes     no      no      no      no      no      yes     no      yes
jwt                no      no      no      no      no      no      no      no      no      yes
jwt-named-as-key   no      no      no      no      no      no      no      no      no      yes
nothing            login   login   login   login   login   login   login   login   login   login
"""
_HEADER, *_ROWS = (line.split() for line in MATRIX.strip().splitlines())
EXPECTED = {row[0]: dict(zip(_HEADER[1:], row[1:], strict=True)) for row in _ROWS}
OUTCOMES = {
    "no": (403, "not_permitted"),
    "scope": (403, "insufficient_scope"),
    "login": (401, "missing_credentials"),
    "hidden": (404, "not_found"),
}

# What each operation does, and what is sent to it. An operation that is added to the table is missing here.
REQUESTS: dict[str, tuple[tuple[str, str, dict[str, Any] | None], ...]] = {
    "createKey": (("create", "", {"name": "new", "scopes": []}),),
    "listKeys": (("list", "", None),),
    "retrieveKey": (("read", "", None),),
    "updateKey": (
        ("change", "", {"name": "renamed", "scopes": [], "allowed_ips": ["192.0.2.0/25"]}),
        ("loosen", "", {"expires_at": None}),
        ("loosen", "", {"allowed_ips": []}),
        ("loosen", "", {"allowed_ips": ["192.0.2.0/23"], "scopes": []}),
    ),
    "rotateKey": (("secret", "", {"grace_seconds": 60}),),
    "endGrace": (("end", "", {}),),
    "revokeKey": (("end", "?self=true", {}),),
    "retrieveUsage": (("read", "", None),),
    "createClient": (("create", "", {"name": "new", "scopes": [], "redirect_uris": [REDIRECT]}),),
    "listClients": (("list", "", None),),
    "retrieveClient": (("read", "", None),),
    "updateClient": (
        ("change", "", {"name": "renamed", "scopes": []}),
        ("loosen", "", {"redirect_uris": ["https://elsewhere.example/"]}),
        ("loosen", "", {"require_pkce": False}),
    ),
    "deleteClient": (("end", "", None),),
    "rotateClientSecret": (("secret", "", {"grace_seconds": 0}),),
    "listGrants": (("list", "", None),),
    "revokeGrant": (("end", "", {}),),
    "listChanges": (("audit", "", None),),
    "createSession": (("session", "", {}),),
    "whoami": (("whoami", "", None),),
}
OBJECTS = {
    "key": ("itself", "weaker", "stronger", "stranger's", "other-environment"),
    "app": ("itself", "weaker", "stronger", "stranger's", "other-environment"),
    "grant": ("itself", "weaker", "stranger's", "other-environment"),
}
CELLS = [
    (operation, done, what)
    for operation in OPERATIONS
    for done in REQUESTS.get(operation.name, ())  # one that is missing fails below
    for what in (OBJECTS[operation.about] if "{id}" in operation.path else ("",))
]
CHANGES = {"change", "loosen", "secret", "end"}  # after which a record is not used for the next cell
HELD = {
    "manager": ["keys:manage", "skills:list", "skills:execute", "account:read"],
    "narrow": ["keys:manage", "skills:list"],
    "tester": ["keys:manage", "skills:list", "skills:execute", "account:read"],
    "plain": ["skills:list"],
}
WEAKER, STRONGER = ["skills:list"], ["skills:list", "webhooks:manage"]  # than each of these


@dataclass(frozen=True)
class Credential:
    """What is sent, and what it comes from: records of the ids that *itself* stands for, by what they are."""

    environment: str
    token: str | None = field(repr=False)
    itself: dict[str, str] = field(default_factory=dict)


@dataclass
class World:
    """A gateway with everything that it can have: two accounts, an authorization server and an issuer."""

    rig: Rig
    account: Account
    stranger: Account
    http: AsyncClient

    async def key(
        self, scopes: list[str], environment: str = "live", account: Account | None = None
    ) -> tuple[str, str]:
        """Return id and secret of a new key that can be loosened."""
        owner, soon = account or self.account, time.time() + 3600
        record, secret = await self.rig.gateway.keys.create(
            owner.id, name="k", scopes=scopes, environment=environment, allowed_ips=["192.0.2.0/24"], expires_at=soon
        )
        return record.id, secret

    async def client(self, scopes: list[str], environment: str = "live", account: Account | None = None) -> OAuthClient:
        owner = account or self.account
        client, _ = await self.rig.gateway.oauth_clients.create(
            owner.id, name="c", scopes=scopes, environment=environment, redirect_uris=[REDIRECT]
        )
        return client

    async def grant(self, client: OAuthClient, user_id: str | None = None) -> Grant:
        consents = self.rig.gateway.consents
        return await consents.grant_for(client, client.account_id, user_id, client.scopes, APPLICATION)

    async def record(self, about: str, what: str, credential: Credential) -> str:
        """Return the id of the record that *what* stands for: a new one, but for what the credential is itself."""
        if what == "itself":
            return credential.itself.get(about, "")
        environment = credential.environment
        if what == "other-environment":
            environment = "test" if environment == "live" else "live"
        owner = self.stranger if what == "stranger's" else self.account
        scopes = STRONGER if what == "stronger" else WEAKER
        if about == "key":
            return (await self.key(scopes, environment, owner))[0]
        client = await self.client(scopes, environment, owner)
        return client.id if about == "app" else (await self.grant(client)).id

    async def stored(self, about: str, name: str) -> object:
        gateway = self.rig.gateway
        find = {
            "key": gateway.keys.get,
            "app": gateway.oauth_clients.get_even_deleted,
            "grant": gateway.revocation.get,
        }[about]
        return await find(None, name)

    async def ask(
        self, credential: Credential, method: str, path: str, body: object = None, **headers: str
    ) -> Response:
        sent = {} if credential.token is None else {"Authorization": f"Bearer {credential.token}"}
        return await self.http.request(method, path, json=body, headers=sent | headers)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    jwks = tmp_path_factory.mktemp("matrix") / "jwks.json"
    jwks.write_text(json.dumps({"keys": [issuer.KEY.as_dict(private=False)]}))
    issuers = [Issuer(issuer.ISSUER, audience=issuer.AUDIENCE, jwks=str(jwks))]
    tiers = {"test": Tier(rate="10000/minute", concurrency=50)}
    async with serving_oauth(issuers=issuers, tiers=tiers) as rig:
        account = await rig.gateway.accounts.find(rig.user.account_id)
        assert account is not None
        stranger = await rig.gateway.accounts.create("globex", "standard")
        yield World(rig, account, stranger, rig.http(base_url=AUDIENCE))


async def of_key(world: World, name: str) -> Credential:
    environment = "test" if name == "tester" else "live"
    key_id, secret = await world.key(HELD[name], environment)
    return Credential(environment, secret, {"key": key_id})


async def of_session(world: World, name: str) -> Credential:
    key = await of_key(world, name)
    response = await world.ask(key, "POST", "/v1/sessions", {"ttl_seconds": 60})
    return Credential(key.environment, response.json()["token"], key.itself)


async def of_app(world: World, name: str) -> Credential:
    """Return a token that an app was given; with `+scope` one that says what no app can be given."""
    gateway, user = world.rig.gateway, world.rig.user.id if name.startswith("user") else None
    client = await world.client(WEAKER)
    grant = await world.grant(client, user)
    claims = access_claims(
        gateway.oauth_settings,
        grant,
        scopes=Scopes(frozenset({*WEAKER, "keys:manage"} if name.endswith("+scope") else WEAKER)),
        resources=(AUDIENCE,),
        family_id=None,
        key=None,
        token_id=os.urandom(8).hex(),
        now=time.time(),
    )
    token = await gateway.signing.sign(claims, TYPE)
    return Credential("live", token, {"app": client.id, "grant": grant.id})


async def of_issuer(world: World, name: str) -> Credential:
    """Return a JWT of another issuer; its subject may read like the id of a key."""
    scope = "keys:manage skills:list"
    if name == "jwt":
        return Credential("live", issuer.token(scope=scope))
    key_id, _ = await world.key(HELD["manager"])
    return Credential("live", issuer.token(scope=scope, sub=key_id), {"key": key_id})


async def credential_of(world: World, name: str) -> Credential:
    if name == "nothing":
        return Credential("live", None)
    if name in HELD:
        return await of_key(world, name)
    if name.endswith("'s-session"):
        return await of_session(world, name.removesuffix("'s-session"))
    return await (of_issuer(world, name) if name.startswith("jwt") else of_app(world, name))


def expected(name: str, done: str, what: str) -> str:
    """Return the outcome of a cell: what the matrix says, of a record that is seen and may be held."""
    outcome = EXPECTED[name][done]
    if outcome not in {"yes", "held"}:
        return outcome  # whatever the record, of which nothing is told
    if what == "stranger's" or (what == "other-environment" and name.startswith("tester")):
        return "hidden"
    return "no" if (outcome, what) == ("held", "stronger") else "yes"


def outcome_of(response: Response) -> str:
    if response.status_code < 300:
        return "yes"
    actual = (response.status_code, response.json()["code"])
    return next((name for name, status_code in OUTCOMES.items() if status_code == actual), str(actual))


def test_the_matrix_knows_every_operation_and_no_other() -> None:
    assert set(REQUESTS) == {operation.name for operation in OPERATIONS}
    assert {done for _, (done, *_), _ in CELLS} == set(_HEADER[1:])


@pytest.mark.asyncio(loop_scope="module")  # one world for all: each makes records of its own in it
@pytest.mark.parametrize("name", EXPECTED)
async def test_a_credential_does_what_the_matrix_says_and_nothing_else(world: World, name: str) -> None:
    wrong, credential, records = [], await credential_of(world, name), dict[tuple[str, str], str]()
    for operation, (done, query, body), what in CELLS:
        about = operation.about
        if what and (about, what) not in records:
            records[about, what] = await world.record(about, what, credential)
        record_id = records.get((about, what), "")
        if what and not record_id:
            continue  # the credential comes of nothing of this kind
        before, head = await world.stored(about, record_id), await world.rig.gateway.store.audit_head()
        response = await world.ask(credential, operation.method, operation.path.format(id=record_id) + query, body)
        actual, wanted = outcome_of(response), expected(name, done, what)
        if actual != wanted:
            wrong.append((operation.name, done, what, actual, wanted))
        if actual != "yes":
            assert "sk_" not in response.text
            assert (await world.stored(about, record_id), await world.rig.gateway.store.audit_head()) == (before, head)
        elif what == "itself" and done in CHANGES:
            credential, records = await credential_of(world, name), {}
        elif done in CHANGES:
            del records[about, what]
    assert wrong == []


DERIVED = ["manager's-session", "user-token+scope", "client-token+scope", "jwt-named-as-key"]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", DERIVED)
async def test_the_stored_response_of_a_key_is_not_replayed_to_its_sessions(world: World, name: str) -> None:
    derived = await credential_of(world, name)
    key_id = derived.itself.get("key") or (await world.key(HELD["manager"]))[0]
    _, secret = await world.rig.gateway.keys.rotate(None, key_id) or ("", "")
    key = Credential("live", secret, {"key": key_id})
    if name.endswith("session"):  # of the secret that the key itself sends
        response = await world.ask(key, "POST", "/v1/sessions", {})
        derived = Credential("live", response.json()["token"])
    target, _ = await world.key(WEAKER)
    for path, body in (("/v1/keys", {"name": "new", "scopes": []}), (f"/v1/keys/{target}/rotate", {})):
        named = {"Idempotency-Key": f"{name} {path}"}
        refused = [await world.ask(derived, "POST", path, body, **named)]
        first = await world.ask(key, "POST", path, body, **named)  # the name was free still
        assert "idempotent-replayed" not in first.headers
        assert outcome_of(first) == "yes"
        refused.append(await world.ask(derived, "POST", path, body, **named))
        refused.append(await world.ask(derived, "POST", path, {"name": "another"}, **named))
        assert [outcome_of(response) for response in refused] == ["no"] * 3
        assert (await world.ask(key, "POST", path, body, **named)).json() == first.json()
