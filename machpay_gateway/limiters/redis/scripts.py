"""The Lua scripts that run in Redis, and how to call them. The `.lua` files document arguments and results."""

import asyncio
from dataclasses import dataclass, field
from hashlib import sha1
from importlib.resources import files

from redis.exceptions import NoScriptError

from machpay_gateway.limiters.redis.connection import (
    REPLY_TIMEOUT_SECONDS,
    STARVED_SECONDS,
    LateReply,
    PipelinedConnection,
    Reply,
    execute,
)
from machpay_gateway.limiters.redis.resp import Argument, encode_bulk


@dataclass(frozen=True)
class Script:
    """A Lua script and its digest, by which Redis caches it."""

    source: str = field(repr=False)
    sha: str = field(init=False)
    _evalsha: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # SHA-1 is what EVALSHA takes. It names the script and protects nothing.
        object.__setattr__(self, "sha", sha1(self.source.encode(), usedforsecurity=False).hexdigest())
        object.__setattr__(self, "_evalsha", encode_bulk("EVALSHA", self.sha))

    def evalsha(self, keys: list[bytes], arguments: list[Argument]) -> tuple[Argument, ...]:
        """Return the command that runs it on a server that has cached it."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)

    def eval(self, keys: list[bytes], arguments: list[Argument]) -> tuple[Argument, ...]:
        """Return the command that runs it on any server, which caches it."""
        return ("EVAL", self.source, len(keys), *keys, *arguments)

    def encode(
        self,
        keys: list[bytes],
        key_count: int,
        arguments: list[bytes],
        argument_count: int,
        *,
        with_source: bool = False,
    ) -> bytes:
        """Return `evalsha` or, *with_source*, `eval`, encoded, from encoded *keys* and *arguments* and their counts."""
        name = encode_bulk("EVAL", self.source) if with_source else self._evalsha
        head = b"*%d\r\n%s%s" % (3 + key_count + argument_count, name, encode_bulk(key_count))
        return b"".join((head, *keys, *arguments))


def _load(name: str) -> Script:
    return Script((files(__package__) / "lua" / name).read_text(encoding="utf-8"))


class Scripts:
    """The scripts of a gateway."""

    def __init__(self) -> None:
        self._admit = _load("admit.lua")
        self.invalidate = _load("invalidate.lua")
        self.heartbeat = _load("heartbeat.lua")

    @property
    def admit(self) -> Script:
        """The script that decides admissions."""
        return self._admit


async def run_script(
    connection: PipelinedConnection, script: Script, keys: list[bytes], arguments: list[Argument]
) -> Reply:
    """Run *script* on *keys* and return its reply. Raises RedisError and OSError; LateReply after the deadline."""
    running = asyncio.ensure_future(_evaluate(connection, script, keys, arguments))
    try:
        # In two waits: after the first, an event loop that was blocked itself reads the reply that is there.
        for seconds in (REPLY_TIMEOUT_SECONDS - STARVED_SECONDS, STARVED_SECONDS):
            await asyncio.wait([running], timeout=seconds)
            if running.done():
                return running.result()
    finally:
        running.cancel()
    raise LateReply


async def _evaluate(
    connection: PipelinedConnection, script: Script, keys: list[bytes], arguments: list[Argument]
) -> Reply:
    try:
        return await execute(connection, keys[0], script.evalsha(keys, arguments))
    except NoScriptError:
        return await execute(connection, keys[0], script.eval(keys, arguments))
