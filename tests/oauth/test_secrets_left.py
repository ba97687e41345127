"""Where secrets are not: in logs, the audit log, errors, or in clear in any table, whatever went wrong."""

import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.audit import Actor
from machpay_gateway.core.oauth.opaque_token import OpaqueTokenKind, mint
from machpay_gateway.core.oauth.parameters import Parameters
from machpay_gateway.core.oauth.token_request import ClientRequest
from machpay_gateway.services.token_issuance import TokenResponse
from tests.oauth.harness import EMAIL, PASSWORD, VERIFIER, Rig, basic, request_of, serving_oauth, submitted
from tests.oauth.proofs import Prover


async def everything(rig: Rig) -> tuple[list[str], list[str]]:
    """Do all that can be done, right and wrong; return the secrets that there were, and all errors that were told."""
    tokens, other = await rig.tokens(), await rig.tokens()
    refreshed = (await rig.refreshed(tokens["refresh_token"])).json()
    used = await rig.code()
    await rig.exchanged(used)
    fresh = await rig.code()
    rotated = await rig.gateway.oauth_clients.rotate_secret(None, rig.client.id)
    assert rotated is not None
    browser = rig.http()
    page = await browser.get("/oauth/authorize", params=request_of(rig.client))
    wrong_password = "a wrong password"
    responses: list[Any] = [
        await submitted(browser, page, email=EMAIL, password=wrong_password),
        await rig.exchanged(used),
        await rig.exchanged(fresh, code_verifier="w" * 50),
        await rig.exchanged(fresh, redirect_uri="https://evil.example"),
        await rig.refreshed(tokens["refresh_token"] + "x"),
        await rig.refreshed(other["refresh_token"], scope="unknown"),
        await rig.token(secret=rig.secret + "x", grant_type="client_credentials"),
        await rig.http().post(f"/oauth/token?client_secret={rig.secret}", data={}),
        await rig.http().post("/oauth/token", data={"code": fresh, "refresh_token": other["refresh_token"]}),
        await rig.revoked(""),
        await rig.introspected(other["access_token"] + "x"),
        await rig.who(other["access_token"] + "x"),
        await rig.who(other["refresh_token"]),
        await rig.who(other["access_token"], scheme="DPoP"),
        await rig.http().post("/oauth/token", data={}, headers={"DPoP": Prover().proof("GET", "x")}),
        await rig.authorize(request_of(rig.client) | {"code_challenge_method": "plain"}),
        await rig.http().get("/oauth/token", params={"code": fresh}, headers=basic(rig.client.id, rig.secret)),
    ]
    await rig.revoked(other["refresh_token"])
    secrets = [tokens["refresh_token"], tokens["access_token"], other["refresh_token"], other["access_token"]]
    secrets += [refreshed["refresh_token"], refreshed["access_token"], used, fresh, rig.secret, rotated[1]]
    secrets += [PASSWORD, wrong_password, VERIFIER, "w" * 50, browser.cookies["__Host-machpay-form"]]
    return secrets, [f"{answer.headers} {answer.text}" for answer in responses]


async def test_no_secret_is_left_anywhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "oauth.db"
    async with serving_oauth(database=f"sqlite:///{path}") as rig:
        secrets, errors = await everything(rig)
        rows = await rig.gateway.store.audit_rows(0)
    audit = "\n".join(f"{row.before} {row.after}" for row in rows)
    assert {row.action for row in rows} >= {"grant.create", "grant.end_family", "client.rotate_secret", "user.create"}
    with closing(sqlite3.connect(path)) as connection:
        database = b"\n".join(text.encode(errors="surrogateescape") for text in connection.iterdump())
    out, err = capfd.readouterr()
    # The test's own client tells of the addresses that it asks.
    logged = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("http"))
    assert "aiosqlite" in {record.name for record in caplog.records}
    for secret in secrets:
        assert secret not in logged
        assert secret not in audit
        assert secret not in out + err
        assert secret.encode() not in database
        assert secret.encode().hex() not in database.decode(errors="replace").lower()
        for error in errors:
            if secret != secrets[-1]:  # which is the browser's own, in its header
                assert secret not in error


async def test_what_holds_a_secret_shows_none_of_it(rig: Rig) -> None:
    tokens = await rig.tokens()
    parameters = Parameters.of([("grant_type", "client_credentials")])
    response = await rig.gateway.token_issuance.issue(ClientRequest(rig.client, parameters, Actor("client", "app_x")))
    assert isinstance(response, TokenResponse)
    shown = repr([response, rig.client, rig.user, await rig.gateway.store.signing_keys()])
    assert tokens["access_token"] not in shown
    assert "argon2" not in shown
    assert all(secret.digest.hex() not in shown for secret in rig.client.secrets)
    assert response.access_token not in shown


@pytest.mark.parametrize("place", ["name", "redirect URI"])
@pytest.mark.parametrize("kind", [*OpaqueTokenKind, "sk_live_mp1_"], ids=str)
async def test_a_secret_in_the_wrong_place_of_an_app_is_neither_kept_nor_repeated(
    rig: Rig, kind: OpaqueTokenKind | str, place: str
) -> None:
    secret = mint(kind, os.urandom(32)) if isinstance(kind, OpaqueTokenKind) else kind + "a" * 38
    wrong: dict[str, Any] = {"name": f"app {secret}", "redirect URI": [f"https://app.example.org/cb?key={secret}"]}
    before = await rig.gateway.store.audit_head()
    with pytest.raises(InputError) as refused:
        await rig.new_client(**{place.replace("redirect URI", "redirect_uris"): wrong[place]})
    assert "holds a secret" in str(refused.value)
    assert secret[12:] not in str(refused.value)
    assert await rig.gateway.store.audit_head() == before
