"""Requests that gunicorn is tested with, where they stand beside this checkout."""

import base64
import json
import re
from pathlib import Path
from typing import NamedTuple

CASES = Path(__file__).parents[2].parent / "shared" / "conformance" / "http1" / "requests.jsonl"


class Case(NamedTuple):
    """One case: *wanted* are the targets of the requests in *raw*, as far as it is valid."""

    name: str
    is_valid: bool
    raw: bytes
    wanted: list[str]


def all_cases() -> list[Case]:
    """Return them; none where the folder is absent."""
    if not CASES.exists():
        return []
    read = [json.loads(line) for line in CASES.read_text().splitlines()]
    return [
        Case(
            case["name"],
            case["kind"] == "valid",
            base64.b64decode(case["b64"]),
            case["expect"]["uris"] if case["kind"] == "valid" else [],
        )
        for case in read
    ]


def with_host(raw: bytes) -> bytes:
    """Give each request of HTTP/1.1 a Host that has none: what else these cases are about would not be seen."""
    if b"\r\nhost:" in raw.lower():
        return raw
    return raw.replace(b" HTTP/1.1\r\n", b" HTTP/1.1\r\nHost: api.test\r\n")


def with_credential(raw: bytes, secret: str) -> bytes:
    """Give each request a credential."""
    return re.sub(rb"( HTTP/1\.[01]\r\n)", rb"\1Authorization: Bearer " + secret.encode() + rb"\r\n", raw)
