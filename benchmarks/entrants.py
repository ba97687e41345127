"""Who is measured: an application, by how many keys it is asked, and what its figures are compared with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entrant:
    """One line of the report. *application* is a name in `benchmarks.applications`, or in `benchmarks.peers`."""

    label: str
    application: str
    keys: int
    compared_with: str = ""  # the label of a bare one
    is_peer: bool = False


_RAW, _RAW_64, _STARLETTE = "raw ASGI, bare", "raw ASGI, bare, 64 keys", "Starlette, bare"

ENTRANTS = (
    Entrant(_RAW, "raw", 1),
    Entrant("MachPayAuth, in memory", "raw_guarded", 1, _RAW),
    Entrant("MachPayAuth, Redis, 1 key", "raw_redis", 1, _RAW),
    Entrant(_RAW_64, "raw", 64),
    Entrant("MachPayAuth, Redis, 64 keys", "raw_redis", 64, _RAW_64),
    Entrant("limits, sliding window", "limits_sliding", 64, _RAW_64, is_peer=True),
    Entrant("limits, moving window", "limits_moving", 64, _RAW_64, is_peer=True),
    Entrant(_STARLETTE, "starlette_bare", 64),
    Entrant("Starlette + MachPayAuth, in memory", "starlette_guarded", 64, _STARLETTE),
    Entrant("slowapi", "slowapi", 64, _STARLETTE, is_peer=True),
    Entrant("throttled-py", "throttled", 64, _STARLETTE, is_peer=True),
    Entrant("fastapi-limiter, pyrate-limiter", "fastapi_limiter", 64, _STARLETTE, is_peer=True),
)
