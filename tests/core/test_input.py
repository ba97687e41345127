"""What is cut short wherever text is shown, kept or logged, and at what cost."""

import time

import pytest

from machpay_gateway.core.input import masked
from machpay_gateway.core.key import mint_secret

SECRET = mint_secret("live", bytes(32))
SIGNED = ".".join(("eyJ" + "hbGciOiJSUzI1NiJ9", "eyJ" + "zdWIiOiIxIn0", "c2lnbmF0dXJl"))


@pytest.mark.parametrize(
    "text, shown",
    [
        (SECRET, "sk_live_…"),
        (f"/v1/{SECRET}/x", "/v1/sk_live_…/x"),
        ("rt_mp1_" + "x" * 32, "rt_mp1_…"),
        (f"Bearer {SIGNED}", "Bearer eyJ…"),
        (f"%20{SIGNED} and", "%20eyJ… and"),  # whatever it follows
        (SIGNED[:40], "eyJ…"),  # cut off, as by an error
        (f"{SIGNED}.c2ln.c2ln", "eyJ…"),  # RFC 7516 §3.1: encrypted, in five parts
        ("postgresql://machpay:hunter2@db:5432/m", "postgresql://machpay:…@db:5432/m"),
        ("redis://:hunter2@127.0.0.1/0", "redis://:…@127.0.0.1/0"),
        ("redis://a:p@ss:w@127.0.0.1", "redis://a:…@127.0.0.1"),  # up to the last one, as libraries read it
        ("http://127.0.0.1:9000/x@y", "http://127.0.0.1:9000/x@y"),  # no password
        ("postgresql://machpay@db/m", "postgresql://machpay@db/m"),
        ("eyJust.a.word", "eyJust.a.word"),
    ],
)
def test_what_looks_like_a_secret_is_cut_short(text: str, shown: str) -> None:
    assert masked(text) == shown


@pytest.mark.parametrize("piece", ["eyJ", "eyJ.", "://a:", "://", "sk_live_", "sk_live_a", "@", "://a:b@"])
def test_no_text_takes_long(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    began_at = time.process_time()
    masked(text)
    assert time.process_time() - began_at < 1.0  # 10 ms; the square of the length would be minutes
