"""The names under which the gateway appears, and the pages about problems."""

import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from httpx2 import ASGITransport, AsyncClient

from machpay_gateway import ConfigurationError, Route
from machpay_gateway.core.api_problems import API_PROBLEMS
from machpay_gateway.core.brand import MACHPAY, Brand
from machpay_gateway.core.decision.credential import ApiKey, Unreadable, credential_of
from machpay_gateway.core.decision.problem import PROBLEMS
from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.key import mask_secret, mint_secret
from machpay_gateway.core.keys.validation import validate_name
from machpay_gateway.core.oauth.opaque_token import OpaqueTokenKind, digest_of, mint, successor
from machpay_gateway.core.text import mask_secrets
from machpay_gateway.problem_pages import problem_paths
from machpay_gateway.server import create_app
from machpay_gateway.settings import load_settings
from machpay_gateway.settings.console import ConsoleSettings
from tests.applications import ok
from tests.forward_auth.check_client import forward_auth_gateway
from tests.gateways import guarded
from tests.serving.processes import served

ACME = Brand(prefix="acme", tag="ac1", realm="Acme API", header_prefix="X-Acme-", name="Acme")
AS_TABLE = {"prefix": "acme", "tag": "ac1", "realm": "Acme API", "header_prefix": "X-Acme-", "name": "Acme"}
CODES = sorted({*map(str, PROBLEMS), *API_PROBLEMS})


def fetch(url: str, headers: Mapping[str, str]) -> bytes:
    request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 - http, of our own gateway
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - as above
        body: bytes = response.read()
        return body


@pytest.mark.parametrize("environment", ["live", "test"])
def test_secrets_of_every_brand_are_read_and_masked(environment: str) -> None:
    for brand in (MACHPAY, ACME):
        secret = mint_secret(environment, bytes(range(32)), brand)
        assert secret.startswith(f"{brand.prefix}_{environment}_{brand.tag}_")
        credential = credential_of(secret.encode(), brand)
        assert isinstance(credential, ApiKey)
        assert credential.environment == environment
        mistyped = secret[:-1] + ("a" if secret[-1] != "a" else "b")
        refused = credential_of(mistyped.encode(), brand)
        assert isinstance(refused, Unreadable)
        assert "checksum" in refused.detail
        assert mask_secret(secret) == f"{brand.prefix}_{environment}_…{secret[-4:]}"
        assert secret[20:] not in mask_secrets(f"GET /x?key={secret} HTTP/1.1")
        with pytest.raises(InputError):
            validate_name(f"my {secret}")


@pytest.mark.parametrize("text", ["web_live_view", "a_test_run", "load_test_of_the_new_checkout_service", "x_live_y_z"])
def test_names_that_resemble_secrets_stay_as_they_are(text: str) -> None:
    assert mask_secrets(text) == text
    assert validate_name(text) == text


def test_opaque_tokens_have_the_tag_of_the_brand_and_keep_it() -> None:
    token = mint(OpaqueTokenKind.REFRESH_TOKEN, bytes(32), ACME.tag)
    assert token.startswith("rt_ac1_")
    assert digest_of(OpaqueTokenKind.REFRESH_TOKEN, token) is not None
    assert successor(token, bytes(32)).startswith("rt_ac1_")
    assert mask_secrets(f"/cb?code={token}") == "/cb?code=rt_…"


async def test_new_keys_are_of_the_brand_and_those_of_an_earlier_one_stay_valid(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/machpay.db"
    async with guarded(ok, database=database) as api:
        _, earlier = await api.key()
    async with guarded(ok, database=database, brand=AS_TABLE) as api:
        _, first = await api.key()
        assert first.startswith("acme_live_ac1_")
    again = AS_TABLE | {"prefix": "acme2", "earlier": ["acme_ac1"]}
    async with guarded(ok, database=database, brand=again) as api:
        _, secret = await api.key()
        for each in (earlier, first, secret):
            async with api.client(each) as client:
                assert (await client.get("/v1/skills")).status_code == 200
        async with api.client() as client:
            response = await client.get("/v1/skills")
            assert response.headers["www-authenticate"] == 'Bearer realm="Acme API"'


async def test_identity_headers_of_the_brand_are_sent_and_a_callers_own_are_refused() -> None:
    async with forward_auth_gateway(brand=ACME) as gateway:
        key_id, secret = await gateway.key()
        allowed = await gateway.ask("nginx", "GET /v1/skills", secret)
        assert allowed.headers["x-acme-key-id"] == key_id
        assert not [name for name in allowed.headers if name.startswith("x-machpay-")]
        for name in ("X-Acme-Account", "X_Acme_Account", "X-MachPay-Account"):
            assert (await gateway.ask("nginx", "GET /v1/skills", secret, {name: "x"})).status_code != 200


def test_the_proxy_sends_the_headers_of_the_brand_and_serves_the_pages(tmp_path: Path) -> None:
    settings = "[brand]\n" + "\n".join(f'{name} = "{value}"' for name, value in AS_TABLE.items())
    with served(tmp_path, settings=settings) as gateway:
        secret, base = gateway.secret(), f"http://127.0.0.1:{gateway.port}"
        forged = {"Authorization": f"Bearer {secret}", "X-Acme-Account": "other", "X-MachPay-Tier": "other"}
        lines = fetch(f"{base}/v1/head", forged).decode().split("\r\n")[1:-2]
        seen = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        assert seen["x-acme-tier"] == "standard"
        assert seen["x-acme-account"] != "other"
        assert not [name for name in seen if name.startswith("x-machpay-")]
        with pytest.raises(urllib.error.HTTPError) as refused:
            fetch(f"{base}/v1/x", {})
        kind = orjson.loads(refused.value.read())["type"]
        assert b"Credentials required" in fetch(base + kind, {})


async def test_each_problem_has_a_page_where_its_type_says() -> None:
    async with guarded(ok, unlisted_routes="deny") as api, api.client() as client:
        for code in CODES:
            response = await client.get(f"/problems/{code}")
            assert response.status_code == 200, code
            assert response.headers["content-type"] == "text/html; charset=utf-8"
            assert f"<code>{code}</code>" in response.text
            assert all(len(part) > 20 for part in re.findall(r"<p>([^<]+)</p>", response.text)), code
        assert (await client.head("/problems/rate_limited")).status_code == 200
        assert (await client.get("/problems/nothing")).status_code == 404
        assert (await client.post("/problems/rate_limited")).status_code == 404
        refused = (await client.get("/v1/skills")).json()
        assert (await client.get(refused["type"])).status_code == 200


async def test_pages_elsewhere_are_not_served_and_a_route_of_the_application_comes_first() -> None:
    async with guarded(ok, brand={"problem_base": "https://docs.example.com/errors/"}) as api, api.client() as client:
        refused = await client.get("/problems/rate_limited")
        assert (refused.status_code, refused.json()["type"]) == (
            401,
            "https://docs.example.com/errors/missing_credentials",
        )
    own = Route("GET /problems/rate_limited", public=True)
    async with guarded(ok, routes=[own]) as api, api.client() as client:
        assert (await client.get("/problems/rate_limited")).text == "ok"
        assert "<html" in (await client.get("/problems/forbidden")).text
    async with guarded(ok, brand={"problem_base": "/errors/", "name": "<Acme>"}) as api, api.client() as client:
        page = await client.get("/errors/rate_limited")
        assert "&lt;Acme&gt;" in page.text
        assert "/errors/rate_limited" in page.text


async def test_the_pages_are_served_at_the_hosts_of_the_console_too() -> None:
    app = create_app(ok, database="memory://", console=ConsoleSettings(url="http://localhost:9000"))
    async with (
        app.gateway,
        AsyncClient(transport=ASGITransport(app=app), base_url="http://localhost:9000") as client,
    ):
        assert (await client.get("/problems/rate_limited")).status_code == 200
        assert (await client.get("/v1/skills")).status_code == 404


@pytest.mark.parametrize(
    "table, message",
    [
        ({"prefix": "Acme"}, "prefix 'Acme' cannot be part of a secret"),
        ({"prefix": "a_b"}, "prefix 'a_b' cannot be part"),
        ({"tag": ""}, "tag '' cannot be part"),
        ({"realm": 'a"b'}, "realm"),
        ({"realm": "ü"}, "realm"),
        ({"problem_base": "/a/b/"}, "problem_base"),
        ({"problem_base": "/problems"}, "problem_base"),
        ({"problem_base": "http://docs.example.com/"}, "problem_base"),
        ({"problem_base": "https://docs.example.com/errors"}, "problem_base"),
        ({"header_prefix": "X-Acme"}, "header_prefix"),
        ({"header_prefix": "X-Forwarded-"}, "header_prefix"),
        ({"header_prefix": "X-"}, "header_prefix"),
        ({"header_prefix": "X-Acme-\r\n"}, "header_prefix"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"nmae": "Acme"}, "did you mean 'name'"),
        ({"name": 7}, "name 7 is not text"),
        ({"earlier": ["acme"]}, "earlier 'acme' is not a prefix and a tag"),
        ({"earlier": {"acme": "ac1"}}, "is not a list of brands"),
    ],
)
def test_wrong_names_are_refused_with_the_way_out(table: Any, message: str) -> None:  # noqa: ANN401 - wrong on purpose
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        load_settings({"brand": table}, environ={})


def test_the_environment_has_the_brand_too() -> None:
    settings = load_settings({}, environ={"MACHPAY_BRAND__NAME": "Acme", "MACHPAY_BRAND__PREFIX": "acme"})
    assert settings.brand == Brand(name="Acme", prefix="acme")


def test_a_brand_with_pages_elsewhere_has_no_paths() -> None:
    assert problem_paths(Brand(problem_base="https://docs.example.com/")) == frozenset()
    assert problem_paths(MACHPAY) == {f"/problems/{code}" for code in CODES}
