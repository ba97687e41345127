"""How a client proves who it is (RFC 6749 §2.3)."""

import base64
import hmac
from dataclasses import replace
from urllib.parse import quote_plus

import pytest
from httpx2 import Response

from machpay_gateway.core.keys.key import SecretRecord, secret_digest
from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.core.oauth.opaque_token import OpaqueTokenKind, mint
from machpay_gateway.core.scopes import Scopes
from tests.keyrings import logged
from tests.oauth.harness import Rig, basic, serving_oauth

GRANT = {"grant_type": "client_credentials"}


async def request_token(rig: Rig, headers: dict[str, str] | None = None, query: str = "", **data: str) -> Response:
    return await rig.http().post(f"/oauth/token{query}", data=GRANT | data, headers=headers or {})


def status_and_error(answer: Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


async def test_a_client_proves_itself_by_its_header_or_in_the_body(rig: Rig) -> None:
    assert (await request_token(rig, basic(rig.client.id, rig.secret))).status_code == 200
    assert (await request_token(rig, client_id=rig.client.id, client_secret=rig.secret)).status_code == 200
    same = await request_token(rig, basic(rig.client.id, rig.secret), client_id=rig.client.id)
    assert same.status_code == 200
    lower = {"Authorization": basic(rig.client.id, rig.secret)["Authorization"].replace("Basic", "bAsIc")}
    assert (await request_token(rig, lower)).status_code == 200
    # RFC 9110 §5.5: whitespace around a value is no part of it.
    blanks = {"Authorization": f"\t{basic(rig.client.id, rig.secret)['Authorization']} \t"}
    assert (await request_token(rig, blanks)).status_code == 200


async def test_id_and_secret_are_percent_encoded_in_the_header(rig: Rig) -> None:
    encoded = "".join(f"%{byte:02X}" for byte in rig.secret.encode())
    text = f"{quote_plus(rig.client.id)}:{encoded}"
    headers = {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}
    assert (await request_token(rig, headers)).status_code == 200
    for odd in ("a:b", "a+b", "a%b", "ä"):  # nobody's, and read as what they are
        assert status_and_error(await request_token(rig, basic(odd, odd))) == (401, "invalid_client")


async def test_two_ways_at_once_are_no_request(rig: Rig) -> None:
    header = basic(rig.client.id, rig.secret)
    assert status_and_error(await request_token(rig, header, client_secret=rig.secret)) == (400, "invalid_request")
    assert status_and_error(await request_token(rig, header, client_id="app_another")) == (400, "invalid_request")


async def test_what_is_secret_is_not_read_from_the_query(rig: Rig) -> None:
    query = f"?client_id={rig.client.id}&client_secret={rig.secret}"
    assert status_and_error(await request_token(rig, query=query)) == (400, "invalid_request")
    assert status_and_error(
        await request_token(rig, basic(rig.client.id, rig.secret), query="?grant_type=client_credentials")
    ) == (
        400,
        "invalid_request",
    )


def flipped(secret: str) -> str:
    return secret[:-1] + ("0" if secret[-1] != "0" else "1")


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "wrong",
        "x" * 5000,
        "\0",
        mint(OpaqueTokenKind.CLIENT_SECRET, bytes(32)),
        mint(OpaqueTokenKind.REFRESH_TOKEN, bytes(32)),
    ],
)
async def test_a_wrong_secret_is_told_with_a_challenge(rig: Rig, secret: str) -> None:
    for answer in (
        await request_token(rig, basic(rig.client.id, secret)),
        await request_token(rig, client_id=rig.client.id, client_secret=secret),
    ):
        assert status_and_error(answer) == (401, "invalid_client")
        challenge = 'Basic realm="machpay", charset="UTF-8", error="invalid_client"'
        assert answer.headers["www-authenticate"] == challenge
        assert answer.headers["cache-control"] == "no-store"
    assert status_and_error(await request_token(rig, basic(rig.client.id, flipped(rig.secret)))) == (
        401,
        "invalid_client",
    )


@pytest.mark.parametrize("header", ["Bearer x", "Basic", "Basic !", "Basic YQ==", "Basic  ", "Digest x", "x"])
async def test_a_header_that_cannot_be_read_proves_nothing(rig: Rig, header: str) -> None:
    assert status_and_error(await request_token(rig, {"Authorization": header})) == (401, "invalid_client")


async def test_an_unknown_client_and_one_without_proof_read_the_same(rig: Rig) -> None:
    unknown = await request_token(rig, basic("app_unknown", rig.secret))
    wrong = await request_token(rig, basic(rig.client.id, "wrong"))
    unproved = await request_token(rig, client_id=rig.client.id)
    nobody = await request_token(rig)
    assert {answer.content for answer in (unknown, wrong, unproved, nobody)} == {unknown.content}
    assert status_and_error(unknown) == (401, "invalid_client")


async def test_a_public_client_has_no_secret_to_send(rig: Rig) -> None:
    public, _ = await rig.new_client(is_public=True)
    sent = {"grant_type": "refresh_token", "refresh_token": "x", "client_id": public.id}
    assert status_and_error(await rig.http().post("/oauth/token", data=sent)) == (400, "invalid_grant")
    with_secret = await rig.http().post("/oauth/token", data=sent | {"client_secret": rig.secret})
    assert status_and_error(with_secret) == (401, "invalid_client")


def test_secrets_are_compared_in_a_time_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = mint(OpaqueTokenKind.CLIENT_SECRET, bytes(range(32)))
    compared: list[tuple[bytes, bytes]] = []

    def comparing(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", comparing)
    secrets = tuple(SecretRecord(secret_digest(text.encode()), "…", 0.0) for text in (secret, secret + "2"))
    client = OAuthClient("app", "acct", "n", "live", "standard", (), Scopes(), (), 0.0, secrets)
    assert client.accepts_secret(secret, 1.0)
    assert len(compared) == 2  # and goes on after the one that fits


async def test_both_secrets_work_through_a_rotations_grace_and_the_old_one_ends(rig: Rig) -> None:
    rotated = await rig.gateway.oauth_clients.rotate_secret(None, rig.client.id, grace_seconds=60)
    assert rotated is not None
    for secret in (rig.secret, rotated[1]):
        assert (await request_token(rig, basic(rig.client.id, secret))).status_code == 200
    client = rotated[0]
    old = replace(client.secrets[1], expires_at=1.0)
    ended = replace(client, secrets=(client.secrets[0], old), version=client.version + 1)
    store = rig.gateway.store
    assert store is not None
    assert await store.replace_client(ended, logged()) is not None
    assert status_and_error(await request_token(rig, basic(rig.client.id, rig.secret))) == (401, "invalid_client")
    assert (await request_token(rig, basic(rig.client.id, rotated[1]))).status_code == 200


async def test_an_address_that_keeps_guessing_is_slowed_and_others_are_not() -> None:
    async with serving_oauth(failure_limit="5/minute") as rig:
        guesser = rig.http(address="198.51.100.9")
        answers = [
            await guesser.post("/oauth/token", data=GRANT, headers=basic(rig.client.id, "wrong")) for _ in range(7)
        ]
        assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 2
        assert answers[-1].json()["error"] == "slow_down"
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert (await request_token(rig, basic(rig.client.id, rig.secret))).status_code == 200  # from its own address
