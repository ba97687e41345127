"""The limiter over every worker: windows, slots and versions in Redis or Valkey, decided there in one step.

A request's way through these files: `limiter` finds its subject and puts the demand to `commits`, which gathers what
one turn of the event loop asks for into one script call on a `link`; the reply settles every request that waited.
`subject` is what a worker knows of a subject, `share` what it does while no server answers, `servers` where to connect.
"""

from machpay_gateway.limiters.redis.limiter import RedisLimiter

__all__ = ["RedisLimiter"]
