"""Keys that an issuer's metadata names: where it is looked for, what is refused, and what happens during an outage."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from machpay_gateway.core.decision.credential import SignedToken
from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.errors import ConfigurationError, KeysetUnavailable
from machpay_gateway.core.jose.discovery import KeySetLocation, key_set_location, metadata_urls
from machpay_gateway.core.jose.issuer import Issuer
from machpay_gateway.core.limits.rate import TIERS
from machpay_gateway.keysets import fetching
from machpay_gateway.keysets.issued import IssuedTokens
from tests.issuers import OAUTH, OPENID, IssuerServer, certificate, issuer_server, jwks, ok, status, tls_of

NOW = 1_800_000_000.0
AUD = "https://api.example.com"
NEW = RSAKey.generate_key(2048, {"kid": "k2"})


def token(server: IssuerServer, iss: str, *, key: RSAKey | None = None, **claims: object) -> SignedToken:
    payload = {"iss": iss, "aud": AUD, "sub": "user-1", "exp": NOW + 100_000, **claims}
    raw = server.sign(payload, key=key).encode()
    return SignedToken(raw, hashlib.sha256(raw).digest())


def verifier(iss: str, **settings: Any) -> IssuedTokens:  # noqa: ANN401 - of any type
    return IssuedTokens([Issuer(iss, audience=AUD, **settings)], TIERS)


@pytest.fixture
async def server() -> AsyncIterator[IssuerServer]:
    async with issuer_server() as server:
        yield server


@pytest.mark.parametrize(
    "issuer, openid, oauth",
    [
        ("https://id.example.com", "https://id.example.com" + OPENID, "https://id.example.com" + OAUTH),
        ("https://id.example.com/", "https://id.example.com" + OPENID, "https://id.example.com" + OAUTH),
        ("https://i.example/a/b", "https://i.example/a/b" + OPENID, f"https://i.example{OAUTH}/a/b"),
        ("https://i.example:8443/a/", "https://i.example:8443/a" + OPENID, f"https://i.example:8443{OAUTH}/a"),
    ],
)
def test_the_paths_of_metadata(issuer: str, openid: str, oauth: str) -> None:
    assert metadata_urls(issuer) == (openid, oauth)


@pytest.mark.parametrize("path, at", [("", OPENID), ("/", OPENID), ("/realms/a", f"/realms/a{OPENID}")])
async def test_keys_are_discovered_by_openid_connect(server: IssuerServer, path: str, at: str) -> None:
    iss = server.publish(path)
    tokens = verifier(iss)
    for _ in range(2):
        assert isinstance(await tokens.verify(token(server, iss), NOW), Principal)
    assert server.fetches == [at, "/keys"]


@pytest.mark.parametrize("path, at", [("", OAUTH), ("/realms/a/", f"{OAUTH}/realms/a")])
@pytest.mark.parametrize("absent", ["404 Not Found", "403 Forbidden", "400 Bad Request"])
async def test_keys_are_discovered_by_rfc_8414(server: IssuerServer, path: str, at: str, absent: str) -> None:
    iss = server.publish(path, at=at)
    server.documents[path.rstrip("/") + OPENID] = status(absent)
    assert isinstance(await verifier(iss).verify(token(server, iss), NOW), Principal)
    assert server.fetches == [path.rstrip("/") + OPENID, at, "/keys"]


async def test_keys_may_be_on_another_host(server: IssuerServer) -> None:
    async with issuer_server() as keys:
        keys.documents["/certs"] = ok(jwks(server.key))
        iss = server.publish(jwks_uri=f"{keys.origin}/certs")
        assert isinstance(await verifier(iss).verify(token(server, iss), NOW), Principal)
        assert (server.fetches, keys.fetches) == ([OPENID], ["/certs"])


def metadata(**changes: object) -> bytes:
    return json.dumps({"issuer": "https://i.example", "jwks_uri": "https://k.example/keys", **changes}).encode()


@pytest.mark.parametrize(
    "document, issuer, reason",
    [
        (metadata(), "https://i.example", None),
        (metadata(jwks_uri="https://10.0.0.1:8443/k?x=1"), "https://i.example", None),
        (metadata(issuer="http://localhost:1", jwks_uri="http://127.0.0.1:2/k"), "http://localhost:1", None),
        (metadata(issuer="https://i.example/"), "https://i.example", "is of issuer 'https://i.example/'"),
        (metadata(issuer="https://I.example"), "https://i.example", "is of issuer"),
        (metadata(issuer="https://evil.example"), "https://i.example", "is of issuer 'https://evil.example'"),
        (metadata(issuer="https://l.example/{tenantid}/v2.0"), "https://l.example/common/v2.0", "is of issuer"),
        (metadata(issuer=["https://i.example"]), "https://i.example", "is of issuer"),
        (metadata(issuer=None), "https://i.example", "is of issuer None"),
        (metadata(jwks_uri=None), "https://i.example", "no jwks_uri"),
        (metadata(jwks_uri=["https://k.example"]), "https://i.example", "no jwks_uri"),
        (metadata(jwks_uri="http://k.example/keys"), "https://i.example", "not an https URL"),
        (metadata(jwks_uri="http://127.0.0.1:6379/"), "https://i.example", "not an https URL"),  # of this machine
        (metadata(jwks_uri="http://localhost/keys"), "https://i.example", "not an https URL"),
        (metadata(jwks_uri="file:///etc/passwd"), "https://i.example", "not an https URL"),
        (metadata(jwks_uri="https://u:p@k.example/"), "https://i.example", "not an https URL"),
        (metadata(jwks_uri="/keys"), "https://i.example", "not an https URL"),
        (b"<html>", "https://i.example", "not JSON"),
        (b"", "https://i.example", "not JSON"),
        (b"[]", "https://i.example", "not a JSON object"),
    ],
)
def test_metadata_is_pinned_to_its_issuer(document: bytes, issuer: str, reason: str | None) -> None:
    location = key_set_location(document, issuer)
    if reason is None:
        assert location == KeySetLocation(json.loads(document)["jwks_uri"])
    else:
        assert reason in str(location)


BAD_METADATA: dict[str, Callable[[IssuerServer], bytes]] = {
    "another issuer": lambda server: ok(metadata(issuer="https://evil.example", jwks_uri=f"{server.origin}/keys")),
    "redirect": lambda server: status("302 Found", f"Location: {server.origin}/real"),
    "500": lambda _: status("500 Oops"),
    "oversize": lambda server: ok(metadata(issuer=server.origin, jwks_uri=f"{server.origin}/keys") + b" " * 600_000),
    "endless": lambda _: b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 3_000_000,
    "HTML": lambda _: ok(b"<html>"),
    "not HTTP": lambda _: b"SSH-2.0-OpenSSH\r\n",
    "compressed": lambda server: ok(metadata(issuer=server.origin), "Content-Encoding: gzip"),
}


@pytest.mark.parametrize("answer", BAD_METADATA)
async def test_bad_metadata_is_refused_and_the_other_path_does_not_replace_it(
    server: IssuerServer, answer: str
) -> None:
    iss = server.publish()
    server.documents[OAUTH] = server.documents["/real"] = server.documents[OPENID]
    good, server.documents[OPENID] = server.documents[OPENID], BAD_METADATA[answer](server)
    tokens = verifier(iss)
    for at in (NOW, NOW + 4.9):
        with pytest.raises(KeysetUnavailable):
            await tokens.verify(token(server, iss), at)
    assert server.fetches == [OPENID]  # once in five seconds, and nothing that it names
    server.documents[OPENID] = good
    assert isinstance(await tokens.verify(token(server, iss), NOW + 5), Principal)


async def test_an_issuer_without_metadata_is_named_with_both_paths(server: IssuerServer) -> None:
    with pytest.raises(KeysetUnavailable) as caught:
        await verifier(server.origin).verify(token(server, server.origin), NOW)
    assert server.fetches == [OPENID, OAUTH]
    assert f"{server.origin}{OPENID} responded 404" in str(caught.value)
    assert f"{server.origin}{OAUTH} responded 404" in str(caught.value)


async def test_metadata_is_read_again_with_the_keys(server: IssuerServer) -> None:
    iss = server.publish()
    tokens = verifier(iss)
    await tokens.verify(token(server, iss), NOW)
    server.publish(jwks_uri=f"{server.origin}/moved")
    server.documents["/moved"] = ok(jwks(NEW))
    assert isinstance(await tokens.verify(token(server, iss, jti="2"), NOW + 599), Principal)
    assert server.fetches == [OPENID, "/keys"]
    assert isinstance(await tokens.verify(token(server, iss, key=NEW), NOW + 600), Principal)
    assert isinstance(await tokens.verify(token(server, iss, jti="3"), NOW + 601), str)
    assert server.fetches == [OPENID, "/keys", OPENID, "/moved"]


@pytest.mark.parametrize("answer", BAD_METADATA)
async def test_without_good_metadata_the_last_location_stays_in_use(
    server: IssuerServer, answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    iss = server.publish()
    tokens = verifier(iss)
    await tokens.verify(token(server, iss), NOW)
    server.documents["/keys"] = ok(jwks(server.key, NEW))
    server.documents[OPENID] = BAD_METADATA[answer](server)
    assert isinstance(await tokens.verify(token(server, iss, key=NEW), NOW + 30), Principal)
    assert server.fetches == [OPENID, "/keys", OPENID, "/keys"]
    assert f"the keys are still fetched from {server.origin}/keys" in caplog.text


async def test_an_issuer_that_went_away_leaves_the_last_good_keys(server: IssuerServer) -> None:
    iss = server.publish()
    tokens = verifier(iss)
    await tokens.verify(token(server, iss), NOW)
    await server.stop()
    for at in (NOW + 700, NOW + 70_000):
        assert isinstance(await tokens.verify(token(server, iss, jti=str(at)), at), Principal)
    await tokens.close()


async def test_callers_at_the_same_time_share_one_discovery(server: IssuerServer) -> None:
    iss = server.publish()
    tokens = verifier(iss)
    server.gate.clear()
    callers = [asyncio.create_task(tokens.verify(token(server, iss, jti=str(n)), NOW)) for n in range(20)]
    await server.requested.wait()
    assert not any(caller.done() for caller in callers)  # so they overlap
    server.gate.set()
    assert all(isinstance(result, Principal) for result in await asyncio.gather(*callers))
    assert server.fetches == [OPENID, "/keys"]


async def test_metadata_that_drips_is_given_up(server: IssuerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "TIMEOUT_SECONDS", 0.05)
    iss = server.publish()
    server.gate.clear()
    with pytest.raises(KeysetUnavailable, match="no complete response within"):
        await verifier(iss).verify(token(server, iss), NOW)
    assert server.fetches == [OPENID]


async def test_what_is_refused_by_its_claims_causes_no_discovery(server: IssuerServer) -> None:
    iss = server.publish()
    tokens = verifier(iss, require={"repository": "acme/api"}, scopes_claim="roles")
    for claims in ({}, {"repository": "acme/web"}, {"repository": "acme/api", "roles": 7}, {"aud": "other"}):
        assert isinstance(await tokens.verify(token(server, iss, **claims), NOW), str)
    assert server.fetches == []


async def test_a_mapped_token_is_cached_as_it_was_mapped(server: IssuerServer) -> None:
    iss = server.publish()
    tokens = verifier(iss, scopes_claim="roles", scope_map={"admin": "a:write"}, account_claim="org")
    signed = token(server, iss, roles=["admin", "x"], org="acme")
    caller = await tokens.verify(signed, NOW)
    assert isinstance(caller, Principal)
    assert (list(caller.scopes), caller.account_id) == (["a:write"], "acme")
    assert tokens.cached(signed.digest, NOW + 1) is caller


async def test_a_ca_file_is_trusted_for_its_issuer_instead_of_the_systems(tmp_path: Path) -> None:
    path = certificate(tmp_path)
    async with issuer_server(tls_of(path)) as server:
        iss = server.publish()
        with pytest.raises(KeysetUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await verifier(iss).verify(token(server, iss), NOW)
        assert server.fetches == []
        assert isinstance(await verifier(iss, ca_file=str(path)).verify(token(server, iss), NOW), Principal)
        listed = verifier(iss, ca_file=str(path), jwks=f"{server.origin}/keys")
        assert isinstance(await listed.verify(token(server, iss), NOW), Principal)


@pytest.mark.parametrize("text", [None, "", "not a certificate"])
def test_an_unusable_ca_file_stops_the_start(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"Issuer 'https://i\.example': ca_file '.*ca\.pem' cannot be used"):
        verifier("https://i.example", ca_file=str(path))


@pytest.mark.parametrize("issuer", ["accounts.google.com", "http://id.example.com", "https://i.example/?a=1", "urn:x"])
def test_an_issuer_that_is_no_url_needs_its_keys(issuer: str) -> None:
    with pytest.raises(ConfigurationError, match=r"its keys cannot be discovered.*set jwks to a file or the URL"):
        Issuer(issuer, audience=AUD)
    assert Issuer(issuer, audience=AUD, jwks="jwks.json").jwks == "jwks.json"
