"""Whatever callers send, and wherever in a request: no log has a secret of it."""

import json
from pathlib import Path

from tests.core.test_masked import SECRETS
from tests.serving.processes import served
from tests.serving.test_lifecycle import ask, until


def test_no_secret_is_in_a_log_wherever_a_request_carries_it(tmp_path: Path) -> None:
    # A peer that is trusted says more of a request than a stranger may.
    with served(tmp_path, settings='trusted_proxies = ["127.0.0.1"]') as gateway:
        own, requests = gateway.secret(), 0
        for secret in (*SECRETS.values(), own):
            twice = "".join(f"%25{ord(char):02x}" for char in secret)
            for path, *fields in (
                (f"/v1/{secret}",),
                (f"/public/{secret}/x;{secret}",),
                (f"/public/{twice}", f"Authorization: Bearer {own}"),
                (f"/public/%25{ord(secret[0]):02x}{secret[1:]}",),
                (f"/unlisted/{secret}.json",),
                (f"/public/x?key={secret}&{secret}",),
                ("/v1/x", f"Authorization: Bearer {secret}"),
                ("/v1/x", f"Authorization: Basic {secret}", f"X-Api-Key: {secret}"),
                (
                    "/public/x",
                    f"X-Request-Id: {secret[:128]}",
                    f"X-Forwarded-For: {secret}",
                    f"X-{secret[:9]}: {secret}",
                ),
                ("/public/x", f"Cookie: session={secret}; {secret}", f"DPoP: {secret}", f"Origin: https://{secret}"),
                ("/public/x", f"Forwarded: for={secret}", f"X-Forwarded-Host: {secret}", f"User-Agent: {secret}"),
            ):
                ask(gateway, path, *fields)
                requests += 1
            ask(gateway, f"/v1/x HTTP/1.1\r\nX-Split: {secret}\r\nX-Rest:")  # what is no request, too
            ask(gateway, f"/v1/x {secret}")
            requests += 2
        log = tmp_path / "access.log"
        until(lambda: log.exists() and log.read_text().count("\n") == requests)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        written = log.read_text() + gateway.log
    assert {line["status"] for line in lines} >= {200, 401, 404, 400}
    for secret in (*SECRETS.values(), own):
        assert secret[12:] not in written
        assert secret.rpartition(".")[2][8:] not in written
        for escape in ("%25", "%"):
            assert "".join(f"{escape}{ord(char):02x}" for char in secret) not in written
