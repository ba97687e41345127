"""CORS in the responses to check requests."""

from tests.forward_auth.check_client import every_peer, forward_auth_gateway

APP = "https://app.example.com"
PREFLIGHT = {"Origin": APP, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}


@every_peer
async def test_each_response_to_a_check_has_the_headers(peer: str) -> None:
    async with forward_auth_gateway(cors={"origins": [APP]}) as gateway:
        _, secret = await gateway.key()
        for caller, status in ((secret, 200), (None, 401)):
            answer = await gateway.ask(peer, "GET /v1/skills", caller, headers={"Origin": APP})
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, APP)
            assert (answer.headers["vary"], answer.headers.get_list("vary")) == ("Origin", ["Origin"])
            assert "Retry-After" in answer.headers["access-control-expose-headers"]
        answer = await gateway.ask(peer, "GET /v1/skills", secret, headers={"Origin": "https://other.example"})
        assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (200, False)


@every_peer
async def test_a_preflight_passes_with_the_headers_that_it_needs(peer: str) -> None:
    async with forward_auth_gateway(cors={"origins": [APP]}) as gateway:
        answer = await gateway.ask(peer, "OPTIONS /v1/skills", headers=PREFLIGHT)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, APP)
        assert answer.headers["access-control-allow-headers"] == "authorization"
        await gateway.gateway.recorder.close()
        counted = [name for name in gateway.gateway.recorder.requests.counts if "preflight" in str(name)]
    assert len(counted) == 1
