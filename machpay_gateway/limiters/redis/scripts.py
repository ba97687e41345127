"""The scripts that run in Redis, and how each is called. What they take and return stands in the `.lua` files."""

from dataclasses import dataclass, field
from hashlib import sha1
from importlib.resources import files

from machpay_gateway.limiters.redis.wire import Argument, bulk


@dataclass(frozen=True)
class Script:
    """A script and the name that Redis knows it by."""

    source: str = field(repr=False)
    sha: str = field(init=False)
    _by_name: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # EVALSHA's own choice of digest: it names, and protects nothing.
        object.__setattr__(self, "sha", sha1(self.source.encode(), usedforsecurity=False).hexdigest())
        object.__setattr__(self, "_by_name", bulk("EVALSHA", self.sha))

    def call(self, keys: list[bytes], arguments: list[Argument]) -> tuple[Argument, ...]:
        """Return the command that runs it by name, on a server that knows it."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)

    def call_in_full(self, keys: list[bytes], arguments: list[Argument]) -> tuple[Argument, ...]:
        """Return the command that runs it on any server, which knows it from then on."""
        return ("EVAL", self.source, len(keys), *keys, *arguments)

    def written(self, keys: list[bytes], arguments: list[bytes], count: int, *, in_full: bool = False) -> bytes:
        """Return `call` or `call_in_full` written, of *keys* and *count* arguments that are written already."""
        name = bulk("EVAL", self.source) if in_full else self._by_name
        head = b"*%d\r\n%s%s" % (3 + len(keys) + count, name, bulk(len(keys)))
        return b"".join((head, *keys, *arguments))


def _read(name: str) -> Script:
    return Script((files(__package__) / "lua" / name).read_text(encoding="utf-8"))


class Scripts:
    """All that a gateway runs in Redis."""

    def __init__(self) -> None:
        self._admit, self.invalidate, self.heartbeat = (
            _read("admit.lua"),
            _read("invalidate.lua"),
            _read("heartbeat.lua"),
        )

    @property
    def admit(self) -> Script:
        """The step of an admission."""
        return self._admit
