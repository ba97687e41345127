"""An authorization server and an API, which record what a refreshing client does."""

import asyncio
import json
import threading
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any

from tests.sdk.scripted import Reply, Script, SentRequest

REFUSED = Reply(401, {"code": "invalid_credentials"})


def jwt(claims: object) -> str:
    """Return an unsigned JWT."""
    parts = [json.dumps({"alg": "EdDSA"}), json.dumps(claims), "not a signature"]
    return ".".join(urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in parts)


def token(number: int) -> str:
    return f"at_{'x' * 30}{number:04}"


def refresh_token(number: int) -> str:
    return f"rt_{'y' * 30}{number:04}"


@dataclass
class Issuer:
    """Accepts the last refresh token that it issued, once. The API accepts the last access token.

    The API waits until *together* requests with the first token have arrived, which proves that they overlap.
    """

    script: Script
    members: dict[str, Any] = field(default_factory=lambda: {"expires_in": 3600})
    rotates: bool = True
    together: int = 1
    issued: int = 0
    ended: set[str] = field(default_factory=set)
    waiting: int = 0
    events: list[str] = field(default_factory=list)  # in their order
    answers: list[Reply] = field(default_factory=list)  # instead of tokens

    def __post_init__(self) -> None:
        self.script.on = {"/oauth/token": self.token, "/v1/whoami": self.whoami, "/v1/keys": self.whoami}
        self.all_arrived = asyncio.Event()
        self.is_blocked = False  # whether the token endpoint waits for `released`
        self.refreshing, self.released = threading.Event(), threading.Event()

    def end(self) -> None:
        """Revoke the current access token."""
        self.ended.add(token(self.issued))

    async def token(self, request: SentRequest) -> Reply:
        self.events.append("token")
        self.refreshing.set()
        if self.is_blocked:
            assert await asyncio.to_thread(self.released.wait, 20)
        if self.answers:
            return self.answers.pop(0)
        if request.form["refresh_token"] != refresh_token(self.issued * self.rotates):
            return Reply(400, {"error": "invalid_grant", "error_description": request.form["refresh_token"]})
        self.issued += 1
        rotated = {"refresh_token": refresh_token(self.issued)} if self.rotates else {}
        return Reply(200, {"access_token": token(self.issued), "token_type": "Bearer", **rotated, **self.members})

    async def whoami(self, request: SentRequest) -> Reply:
        self.events.append("api")
        sent = request.headers["authorization"].removeprefix("Bearer ")
        if sent == token(0) and self.together > 1:
            self.waiting += 1
            if self.waiting == self.together:
                self.all_arrived.set()
            await asyncio.wait_for(self.all_arrived.wait(), 20)
        is_good = sent == token(self.issued) and sent not in self.ended
        return Reply(200, {"id": "key_1", "secret": "shown once"}) if is_good else REFUSED
