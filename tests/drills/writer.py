"""Processes that change keys at random and tell of each change as soon as it was acknowledged, until they are killed.

`python -m tests.drills.writer URL` pays for the imports once and then, for each seed that it reads, forks a writer on
the database. It opens nothing itself and has one thread: so a fork is as good as a new process. "ready PID" is what a
writer begins with, and "dead" what is said when it has ended.
"""

import asyncio
import os
import random
import sys
from dataclasses import dataclass
from hashlib import sha256

from machpay_gateway import Gateway
from machpay_gateway.core.keys.key import KeyRecord

ACCOUNT = "drill"
_CHANGES = ("create", "rotate", "rotate", "update", "update", "revoke")
_KNOWN = 20  # keys that are changed over and over: those that another process has left, and what is made here


@dataclass(frozen=True, slots=True)
class Told:
    """A change that was acknowledged: of which key, to which version and, of a new secret, its digest."""

    action: str
    key_id: str
    version: int
    digest: str

    def line(self) -> bytes:
        return f"{self.action} {self.key_id} {self.version} {self.digest}\n".encode()

    @classmethod
    def read(cls, line: str) -> "Told":
        action, key_id, version, digest = line.split(" ")
        return cls(action, key_id, int(version), digest)


def main() -> None:
    (database,) = sys.argv[1:]
    import machpay_gateway.stores.sql  # noqa: F401, PLC0415 - paid for once, before the forks

    for seed in sys.stdin:
        if (child := os.fork()) == 0:
            asyncio.run(_write(database, random.Random(int(seed))))  # noqa: S311 - told, so that it can be run again
        os.waitpid(child, 0)
        os.write(1, b"dead\n")


async def _write(database: str, draw: random.Random) -> None:
    async with Gateway(database=database) as gateway:
        account = await gateway.accounts.find(ACCOUNT)
        assert account is not None
        key_ids = [
            record.id for record in await gateway.keys.list(account.id, limit=_KNOWN) if record.revoked_at is None
        ]
        os.write(1, f"ready {os.getpid()}\n".encode())
        while True:
            action = draw.choice(_CHANGES) if len(key_ids) > 2 else "create"
            key_id = draw.choice(key_ids) if key_ids else ""
            record, secret = await _changed(gateway, action, account.id, key_id, str(draw.random()))
            digest = sha256(secret.encode()).hexdigest() if secret else ""
            # One write of less than PIPE_BUF: a kill cannot tear it.
            os.write(1, Told(action, record.id, record.version, digest).line())
            if action == "create":
                key_ids = [*key_ids, record.id][-_KNOWN:]
            elif action == "revoke":
                key_ids.remove(record.id)


async def _changed(gateway: Gateway, action: str, account_id: str, key_id: str, name: str) -> tuple[KeyRecord, str]:
    """Make one change, and return the key with its new secret if it has one."""
    keyring = gateway.keys
    match action:
        case "create":
            return await keyring.create(account_id, name=name, scopes=["skills:list"], environment="live")
        case "rotate":
            rotated = await keyring.rotate(account_id, key_id)
            assert rotated is not None
            return rotated
        case "update":
            changed = await keyring.update(account_id, key_id, name=name)
        case _:
            changed = await keyring.revoke(account_id, key_id)
    assert changed is not None
    return changed, ""


if __name__ == "__main__":
    main()
