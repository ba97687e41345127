"""What the log says of a refusal, and what it never says."""

import logging

import pytest

from machpay_gateway.core.keys.key import mint_secret
from tests.applications import ok
from tests.gateways import guarded


async def test_a_refusal_is_logged_with_its_exact_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "machpay_gateway")
    async with guarded(ok) as api:
        key_id, secret = await api.key()
        await api.gateway.keys.revoke(None, key_id)
        answer = await api.client(secret).get("/v1/skills")
    (record,) = [record for record in caplog.records if "refused" in record.getMessage()]
    message = record.getMessage()
    assert (record.name, record.levelno) == ("machpay_gateway", logging.INFO)
    for expected in (
        answer.headers["x-request-id"],
        "invalid_credentials (revoked)",
        key_id,
        "192.0.2.1",
        "'/v1/skills'",
    ):
        assert expected in message
    assert "revoked" not in answer.text


async def test_refusals_never_log_the_credential(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with guarded(ok, failure_limit="20/minute", environments=["live"]) as api:
        _, reader = await api.key(scopes=["skills:list"], allowed_ips=["198.51.100.0/24"])
        _, sandboxed = await api.key(environment="test")
        presented = [reader, sandboxed, mint_secret("live", bytes(32)), "e30.e30.c2ln", "junk-" + "x" * 40]
        for secret in presented:
            for _ in range(8):
                assert (await api.client(secret).post("/v1/skills/execute")).status_code in {401, 403, 429}
            await api.client(secret).get("/v1/skills", headers={"Authorization": f"Bearer {secret}"})
    assert len(caplog.records) >= 40
    for secret in presented:
        assert secret not in caplog.text
        assert secret[12:30] not in caplog.text or secret.count(".")


async def test_a_secret_in_a_path_is_masked(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "machpay_gateway")
    async with guarded(ok) as api:
        _, secret = await api.key()
        await api.client().get(f"/v1/keys/{secret}")
    assert "path='/v1/keys/sk_live_…'" in caplog.text
    assert secret not in caplog.text


async def test_a_path_cannot_inject_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "machpay_gateway")
    async with guarded(ok) as api:
        await api.client().get("/v1/x%0a2026 request forged")
        await api.client().get("/v1/%E2%80%A8forged")
    assert all("\n" not in record.getMessage() and "\u2028" not in record.getMessage() for record in caplog.records)
