"""Why a server that can be reached does not serve the limiter, and the way out.

One table for the start, which such a server stops, for the log of an outage, and for `machpay-gateway doctor`.
"""

import re
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    ClusterCrossSlotError,
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.sentinel import MasterNotFoundError

_COMMAND = re.compile(r"'([^']+)' command")  # in the refusal of a command; the refusal of a key names none
_DENIED = re.compile(r"no permissions to|user executing the script can't")  # of a script, by its user's rights
_UNKNOWN_COMMAND = re.compile(r"unknown command\W+(\w+)", re.IGNORECASE)
# Conditions that pass without anybody changing the settings. Redis 6 has the code within the text of a script's error.
_PASSING = re.compile(r"(?:^|-)(?:OOM|NOREPLICAS|MISCONF|BUSY|UNKILLABLE|LOADING|CLUSTERDOWN|TRYAGAIN)\b")
_READONLY = re.compile(r"-READONLY\b")
_TLS_ALERT = re.compile(r"ALERT")  # of the peer, in OpenSSL's names of reasons
_MAX_TEXT = 200  # characters of what a server says
_UPGRADE = "run Redis 6.2 or later, or Valkey"

# Every command that the limiter runs, as ACL rules: to connect, and in its scripts.
_RIGHTS = (
    *("client|setname", "select", "eval", "evalsha", "time", "expire", "ttl", "mget", "set", "setrange"),
    *("zadd", "zcard", "zrem", "zremrangebyscore"),
)
_CLUSTER_RIGHTS = ("cluster|slots", "asking")


@dataclass(frozen=True, slots=True)
class LimiterUse:
    """How the limiter is configured to use the servers. *kind* is that of `Servers`."""

    prefix: str
    on_failure: str
    kind: str = ""

    @property
    def in_cluster(self) -> bool:
        """Whether the servers are those of a Cluster."""
        return self.kind == "cluster"

    @property
    def failure_mode(self) -> str:
        """What decides limits while no server takes writes."""
        return f'on_limiter_failure = "{self.on_failure}" decides'

    @property
    def acl_command(self) -> str:
        """The command that gives a user every right that the limiter needs."""
        rights = _RIGHTS + (_CLUSTER_RIGHTS if self.in_cluster else ())
        return f"`ACL SETUSER USER ~{self.prefix}:* {' '.join(f'+{right}' for right in rights)}`"


@dataclass(frozen=True, slots=True)
class ServerRefusal:
    """What the server refuses, and the way out. One that *passes* by itself is no mistake in the settings."""

    message: str
    way_out: str
    passes: bool = False


class AccessRefusedError(RedisError):
    """A server refuses commands that the limiter needs: *failures* are its replies."""

    def __init__(self, failures: Sequence[Exception]) -> None:
        super().__init__("; ".join(dict.fromkeys(map(str, failures))))
        self.failures = tuple(failures)


class WrongProtocolError(RedisError):
    """The port speaks TLS and the URL does not (*speaks_tls*), or the reverse."""

    def __init__(self, *, speaks_tls: bool) -> None:
        super().__init__(f"the port speaks {'TLS' if speaks_tls else 'no TLS'}")
        self.speaks_tls = speaks_tls


class UnknownPrimaryError(MasterNotFoundError):
    """The sentinels answer, and none of them watches a primary by the name in the URL."""


_Reason = Callable[[Sequence[Exception], LimiterUse], ServerRefusal | None]


def explain(failure: Exception, use: LimiterUse) -> ServerRefusal | None:
    """Return why a server refused, by *failure*; None when it could not be reached, or not in time."""
    failures = failure.failures if isinstance(failure, AccessRefusedError) else (failure,)
    return next((refusal for reason in _REASONS if (refusal := reason(failures, use)) is not None), None)


def _wrong_protocol(failures: Sequence[Exception], _use: LimiterUse) -> ServerRefusal | None:
    for failure in failures:
        if isinstance(failure, WrongProtocolError) and failure.speaks_tls:
            return ServerRefusal("its port speaks TLS", "write `redis` with rediss:// in place of redis://")
        if isinstance(failure, WrongProtocolError):
            return ServerRefusal("its port does not speak TLS", "write `redis` with redis:// in place of rediss://")
        if isinstance(failure, InvalidResponse):
            message = f"what answers there is no Redis server ({_text(failure)})"
            return ServerRefusal(message, "see the host and the port in `redis`")
    return None


def _tls_refused(failures: Sequence[Exception], _use: LimiterUse) -> ServerRefusal | None:
    for failure in failures:
        cause = failure.__cause__ or failure.__context__
        if isinstance(cause, ssl.SSLCertVerificationError):
            way_out = "name its authority in the URL, as ?ssl_ca_certs=FILE, and the server as its certificate does"
            return ServerRefusal(f"its certificate is not trusted ({cause.verify_message})", way_out)
        if isinstance(cause, ssl.SSLError) and _TLS_ALERT.search(cause.reason or ""):
            way_out = "see the TLS options of the URL, such as ssl_certfile and ssl_keyfile"
            return ServerRefusal(f"it refuses the TLS handshake ({cause.reason})", way_out)
    return None


def _not_let_in(failures: Sequence[Exception], _use: LimiterUse) -> ServerRefusal | None:
    for failure in failures:
        if isinstance(failure, AuthenticationWrongNumberOfArgsError):
            return ServerRefusal("it is too old for users with names", _UPGRADE)
        if isinstance(failure, AuthenticationError):
            message = f"the server does not let us in ({_text(failure)})"
            return ServerRefusal(message, "see the user and the password in `redis`")
    return None


def _wrong_kind(failures: Sequence[Exception], use: LimiterUse) -> ServerRefusal | None:
    text = " ".join(map(str, failures))
    if any(isinstance(failure, MovedError | ClusterCrossSlotError) for failure in failures) and not use.in_cluster:
        return IN_CLUSTER
    if "cluster support disabled" in text:
        return ServerRefusal("it is not a node of a Cluster", "write `redis` as redis://HOST:PORT/0")
    if any(isinstance(failure, UnknownPrimaryError) for failure in failures):
        way_out = "write the name that `SENTINEL MASTERS` shows: redis+sentinel://HOST:PORT/NAME/0"
        return ServerRefusal(f"the sentinels know no primary by that name ({text})", way_out)
    if use.kind == "sentinel" and "'sentinel'" in text.lower():
        return ServerRefusal("it is not a Sentinel", "name the sentinels, or write `redis` as redis://HOST:PORT/0")
    return None


def _replica(failures: Sequence[Exception], use: LimiterUse) -> ServerRefusal | None:
    for failure in failures:
        if isinstance(failure, ReadOnlyError | MasterDownError) or _READONLY.search(str(failure)):
            way_out = "name its primary, or let redis+sentinel:// or redis+cluster:// find it"
            # Where another one is found, this may be the moment of a failover.
            return ServerRefusal("it is a replica and takes no writes", way_out, passes=bool(use.kind))
    return None


def _no_permission(failures: Sequence[Exception], use: LimiterUse) -> ServerRefusal | None:
    texts = [str(it) for it in failures if isinstance(it, NoPermissionError) or _DENIED.search(str(it).lower())]
    if not texts:
        return None
    commands = {match[1].upper().replace("|", " ") for text in texts if (match := _COMMAND.search(text))}
    missing = [f"run {', '.join(sorted(commands))}"] if commands else []
    if any(not _COMMAND.search(text) for text in texts):
        missing.append(f"use keys {use.prefix}:*")
    return ServerRefusal(f"the user may not {', nor '.join(missing)}", use.acl_command)


def _passing(failures: Sequence[Exception], use: LimiterUse) -> ServerRefusal | None:
    if any(isinstance(failure, OutOfMemoryError) or "-OOM" in str(failure) for failure in failures):
        message = f"its memory is full, so it refuses writes: {use.failure_mode}"
        return ServerRefusal(message, "raise its `maxmemory`, or make room in it", passes=True)
    for failure in failures:
        if isinstance(failure, ClusterDownError | TryAgainError) or _PASSING.search(str(failure)):
            return _of_commands(failure, use, "see its log", passes=True)
    return None


def _other(failures: Sequence[Exception], use: LimiterUse) -> ServerRefusal | None:
    for failure in failures:
        if "index is out of range" in str(failure):
            message = f"it does not have the URL's database ({_text(failure)})"
            return ServerRefusal(message, "end `redis` in /NUMBER with one below the server's `databases`, as in /0")
        if match := _UNKNOWN_COMMAND.search(str(failure)):
            message = f"it does not know the command {match[1].upper()}"
            return ServerRefusal(message, f"{_UPGRADE}, without a renamed command, and name no Sentinel")
        if isinstance(failure, ResponseError):
            return _of_commands(failure, use, "see its log")
    return None


def _of_commands(failure: Exception, use: LimiterUse, way_out: str, *, passes: bool = False) -> ServerRefusal:
    message = f"it refuses the limiter's commands ({_text(failure)})"
    return ServerRefusal(f"{message}: {use.failure_mode}" if passes else message, way_out, passes=passes)


def _text(failure: Exception) -> str:
    return str(failure).strip().rstrip(".")[:_MAX_TEXT]


IN_CLUSTER = ServerRefusal("it is one node of a Cluster", "write `redis` as redis+cluster://HOST:PORT")
_REASONS: Sequence[_Reason] = (
    _wrong_protocol,
    _tls_refused,
    _not_let_in,
    _wrong_kind,
    _replica,
    _no_permission,
    _passing,
    _other,
)
