import asyncio
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import OKPKey, RSAKey

from machpay_gateway.core.decision.credential import SignedToken
from machpay_gateway.core.decision.principal import Principal
from machpay_gateway.core.errors import KeysetUnavailable
from machpay_gateway.core.jose.issuer import Issuer
from machpay_gateway.core.limits.rate import TIERS
from machpay_gateway.keysets import fetching
from machpay_gateway.keysets.issued import IssuedTokens
from tests.issuers import certificate, tls_of

NOW = 1_800_000_000.0
ISS, AUD = "https://id.example.com", "https://api.example.com"
OLD, NEW = (RSAKey.generate_key(2048, {"kid": kid}) for kid in ("old", "new"))


def jwks(*keys: RSAKey | OKPKey) -> bytes:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()


def token(key: RSAKey = OLD, *, kid: str | None = None, **claims: object) -> SignedToken:
    payload = {"iss": ISS, "aud": AUD, "sub": "user-1", "exp": NOW + 3600, "scope": "skills:list", **claims}
    raw = jwt.encode({"alg": "RS256", "kid": kid or str(key.kid)}, payload, key).encode()
    return SignedToken(raw, hashlib.sha256(raw).digest())


def issuer(url: str) -> Issuer:
    return Issuer(ISS, audience=AUD, jwks=url)


class JwksServer:
    """Answers every request with *answer*, after *gate* opens, and counts them."""

    def __init__(self) -> None:
        self.answer = self.ok(jwks(OLD))
        self.fetches = 0
        self.requested, self.gate = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.url = ""
        self._server: asyncio.Server | None = None

    @staticmethod
    def ok(body: bytes, *headers: str) -> bytes:
        lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
        return "\r\n".join(lines).encode() + body

    async def start(self, port: int = 0, tls: ssl.SSLContext | None = None) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=tls)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"https://localhost:{port}/jwks.json" if tls else f"http://127.0.0.1:{port}/jwks.json"
        return port

    async def stop(self, *, is_waiting: bool = True) -> None:
        if self._server is not None:
            self._server.close()
            if is_waiting:
                await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.fetches += 1
            self.requested.set()
            await self.gate.wait()
            writer.write(self.answer)
        finally:
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[JwksServer]:
    server = JwksServer()
    await server.start()
    yield server
    server.gate.set()
    await server.stop()


@pytest.fixture
def tokens(server: JwksServer) -> IssuedTokens:
    return IssuedTokens([issuer(server.url)], TIERS)


async def test_a_good_token_is_known_afterwards_without_io(tokens: IssuedTokens, server: JwksServer) -> None:
    good = token()
    assert tokens.cached(good.digest, NOW) is None
    principal = await tokens.verify(good, NOW)
    assert isinstance(principal, Principal)
    assert (principal.id, list(principal.scopes)) == ("user-1", ["skills:list"])
    assert tokens.cached(good.digest, NOW + 59) is principal
    assert tokens.cached(good.digest, NOW + 60) is None  # its key may have been withdrawn
    await tokens.verify(good, NOW + 60)
    assert server.fetches == 1


async def test_what_is_refused_by_its_claims_costs_no_fetch(tokens: IssuedTokens, server: JwksServer) -> None:
    for bad in (token(iss="https://evil.example"), token(exp=1), token(aud="x"), SignedToken(b"a.b.c", b"1")):
        assert isinstance(await tokens.verify(bad, NOW), str)
    assert server.fetches == 0


async def test_a_flood_of_unknown_keys_causes_one_fetch(tokens: IssuedTokens, server: JwksServer) -> None:
    await tokens.verify(token(), NOW)
    for n in range(100):
        assert isinstance(await tokens.verify(token(kid=f"made-up-{n}"), NOW + 31), str)
    assert server.fetches == 2  # the first load, and one for all of the flood


async def test_a_new_key_is_picked_up_after_the_cooldown(tokens: IssuedTokens, server: JwksServer) -> None:
    await tokens.verify(token(), NOW)
    server.answer = server.ok(jwks(OLD, NEW))
    assert isinstance(await tokens.verify(token(NEW), NOW + 29), str)
    assert isinstance(await tokens.verify(token(NEW), NOW + 30), Principal)
    assert isinstance(await tokens.verify(token(), NOW + 30), Principal)
    assert server.fetches == 2


async def test_a_clock_that_was_set_back_does_not_stop_fetching(tokens: IssuedTokens, server: JwksServer) -> None:
    await tokens.verify(token(), NOW)
    server.answer = server.ok(jwks(NEW))
    assert isinstance(await tokens.verify(token(NEW), NOW - 500), Principal)


async def test_callers_at_the_same_time_share_one_fetch(tokens: IssuedTokens, server: JwksServer) -> None:
    server.gate.clear()
    callers = [asyncio.create_task(tokens.verify(token(sub=f"user-{n}"), NOW)) for n in range(20)]
    await server.requested.wait()  # the fetch is under way, and held
    callers.append(asyncio.create_task(tokens.verify(token(kid="made-up"), NOW)))
    impatient = callers.pop(0)
    impatient.cancel()
    await asyncio.wait([impatient])
    assert not any(caller.done() for caller in callers)  # so they overlap
    server.gate.set()
    answers = await asyncio.gather(*callers)
    assert impatient.cancelled()  # and took the fetch from nobody else
    assert [type(answer) for answer in answers] == [Principal] * 19 + [str]
    assert server.fetches == 1


async def test_an_old_set_keeps_serving_while_it_is_refreshed(tokens: IssuedTokens, server: JwksServer) -> None:
    await tokens.verify(token(), NOW)
    server.gate.clear()
    server.requested.clear()
    server.answer = server.ok(jwks(NEW))
    for _ in range(3):
        assert isinstance(await tokens.verify(token(), NOW + 600), Principal)  # without waiting for the held fetch
    await server.requested.wait()
    waiting = asyncio.create_task(tokens.verify(token(NEW), NOW + 600))  # joins it: its key may be on the way
    server.gate.set()
    assert isinstance(await waiting, Principal)
    assert isinstance(await tokens.verify(token(), NOW + 601), str)  # withdrawn
    assert server.fetches == 2


BAD_ANSWERS: dict[str, Callable[[str], bytes]] = {
    "redirect": lambda url: f"HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n".encode(),
    "oversize": lambda _: JwksServer.ok(b'{"keys":[' + b" " * 600_000 + b"]}"),
    "endless": lambda _: b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 3_000_000,
    "HTML": lambda _: JwksServer.ok(b"<html>", "Content-Type: text/html"),
    "empty object": lambda _: JwksServer.ok(b"{}"),
    "no keys": lambda _: JwksServer.ok(b'{"keys":[]}'),
    "no usable key": lambda _: JwksServer.ok(jwks(OKPKey.generate_key("X25519"))),
    "nothing": lambda _: JwksServer.ok(b""),
    "cut off": lambda _: JwksServer.ok(jwks(NEW))[:-5],
    "500 with good keys": lambda _: JwksServer.ok(jwks(NEW)).replace(b"200 OK", b"500 Oops"),
    "compressed": lambda _: JwksServer.ok(jwks(NEW), "Content-Encoding: gzip"),
    "not HTTP": lambda _: b"SSH-2.0-OpenSSH\r\n",
    "hung up": lambda _: b"",
}


@pytest.mark.parametrize("answer", BAD_ANSWERS)
async def test_a_bad_answer_never_replaces_good_keys(tokens: IssuedTokens, server: JwksServer, answer: str) -> None:
    await tokens.verify(token(), NOW)
    server.answer = BAD_ANSWERS[answer](server.url)
    assert isinstance(await tokens.verify(token(NEW), NOW + 700), str)  # this one waits for the fetch
    assert isinstance(await tokens.verify(token(), NOW + 701), Principal)
    assert server.fetches == 2  # so a redirect was not followed either


@pytest.mark.parametrize("answer", BAD_ANSWERS)
async def test_without_ever_a_good_set_the_keys_are_unavailable(
    tokens: IssuedTokens, server: JwksServer, answer: str
) -> None:
    server.answer = BAD_ANSWERS[answer](server.url)
    for at in (NOW, NOW + 1, NOW + 4.9):
        with pytest.raises(KeysetUnavailable):
            await tokens.verify(token(), at)
    assert server.fetches == 1  # a server that is down is not asked by every request
    server.answer = server.ok(jwks(OLD))
    assert isinstance(await tokens.verify(token(), NOW + 5), Principal)


async def test_a_server_that_went_away_leaves_the_last_good_keys(tokens: IssuedTokens, server: JwksServer) -> None:
    await tokens.verify(token(), NOW)
    await server.stop()
    for at in (NOW + 700, NOW + 7000, NOW + 70_000):
        assert isinstance(await tokens.verify(token(kid="made-up", exp=at + 9), at), str)
        assert isinstance(await tokens.verify(token(exp=at + 9), at), Principal)
    await tokens.close()


async def test_a_server_that_drips_is_given_up(
    tokens: IssuedTokens, server: JwksServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "TIMEOUT_SECONDS", 0.05)
    server.gate.clear()
    with pytest.raises(KeysetUnavailable, match="no complete response within"):
        await tokens.verify(token(), NOW)


async def test_closing_abandons_a_fetch(tokens: IssuedTokens, server: JwksServer) -> None:
    server.gate.clear()
    caller = asyncio.create_task(tokens.verify(token(), NOW))
    await server.requested.wait()
    await tokens.close()
    with pytest.raises(KeysetUnavailable):
        await caller


def test_one_verifier_serves_event_loops_one_after_the_other() -> None:
    port, made = 0, list[IssuedTokens]()

    async def verified(key: RSAKey, now: float, *, is_held: bool = False) -> Principal | str:
        nonlocal port
        server = JwksServer()
        port = await server.start(port)
        server.answer = server.ok(jwks(key))
        if is_held:
            server.gate.clear()
        if not made:
            made.append(IssuedTokens([issuer(server.url)], TIERS))
        answer = await made[0].verify(token(key), now)
        if is_held:
            await server.requested.wait()  # a refresh is under way when its loop ends
        await server.stop(is_waiting=not is_held)
        return answer

    assert isinstance(asyncio.run(verified(OLD, NOW)), Principal)
    assert isinstance(asyncio.run(verified(OLD, NOW + 700, is_held=True)), Principal)
    assert isinstance(asyncio.run(verified(NEW, NOW + 1400)), Principal)


async def test_keys_come_from_a_server_whose_certificate_is_trusted_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, server = certificate(tmp_path), JwksServer()
    await server.start(tls=tls_of(path))
    with pytest.raises(KeysetUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        await IssuedTokens([issuer(server.url)], TIERS).verify(token(), NOW)
    assert server.fetches == 0
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    assert isinstance(await IssuedTokens([issuer(server.url)], TIERS).verify(token(), NOW), Principal)
    await server.stop()
