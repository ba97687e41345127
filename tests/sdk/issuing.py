"""An authorization server and an API beside it, by which tests see what a client that refreshes does."""

import asyncio
import json
import threading
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any

from tests.sdk.scripted import Asked, Said, Script

REFUSED = Said(401, {"code": "invalid_credentials"})


def jwt(claims: object) -> str:
    """Return what looks like a signed token."""
    parts = [json.dumps({"alg": "EdDSA"}), json.dumps(claims), "a signature of nobody"]
    return ".".join(urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in parts)


def token(number: int) -> str:
    return f"at_{'x' * 30}{number:04}"


def refresh_token(number: int) -> str:
    return f"rt_{'y' * 30}{number:04}"


@dataclass
class Issuer:
    """Takes the last refresh token that it gave, once; the API takes the last access token.

    The API answers nobody before *together* requests with the first token are there: it has seen that they overlap.
    """

    script: Script
    members: dict[str, Any] = field(default_factory=lambda: {"expires_in": 3600})
    rotates: bool = True
    together: int = 1
    issued: int = 0
    ended: set[str] = field(default_factory=set)
    at_once: int = 0
    told: list[str] = field(default_factory=list)  # in which order what happened
    answers: list[Said] = field(default_factory=list)  # in place of tokens

    def __post_init__(self) -> None:
        self.script.on = {"/oauth/token": self.token, "/v1/whoami": self.whoami, "/v1/keys": self.whoami}
        self.all_there = asyncio.Event()
        self.is_held = False  # whether the token endpoint waits for `released`
        self.refreshing, self.released = threading.Event(), threading.Event()

    def end(self) -> None:
        """Let the present access token end before its time."""
        self.ended.add(token(self.issued))

    async def token(self, asked: Asked) -> Said:
        self.told.append("token")
        self.refreshing.set()
        if self.is_held:
            assert await asyncio.to_thread(self.released.wait, 20)
        if self.answers:
            return self.answers.pop(0)
        if asked.form["refresh_token"] != refresh_token(self.issued * self.rotates):
            return Said(400, {"error": "invalid_grant", "error_description": asked.form["refresh_token"]})
        self.issued += 1
        rotated = {"refresh_token": refresh_token(self.issued)} if self.rotates else {}
        return Said(200, {"access_token": token(self.issued), "token_type": "Bearer", **rotated, **self.members})

    async def whoami(self, asked: Asked) -> Said:
        self.told.append("api")
        sent = asked.headers["authorization"].removeprefix("Bearer ")
        if sent == token(0) and self.together > 1:
            self.at_once += 1
            if self.at_once == self.together:
                self.all_there.set()
            await asyncio.wait_for(self.all_there.wait(), 20)
        is_good = sent == token(self.issued) and sent not in self.ended
        return Said(200, {"id": "key_1"}) if is_good else REFUSED
