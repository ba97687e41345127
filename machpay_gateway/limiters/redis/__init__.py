"""The limiter over every worker: windows, slots and versions in Redis or Valkey, decided there in one step.

The path of a request through these files: `limiter` finds its `subject` and submits it to the `batcher` of its shard,
which gathers the steps of one turn of the event loop into one call of `scripts` on a pipelined `connection`; the reply
resolves every request that waits. `connection_supervisor` keeps the connection of a shard up and declares its outages,
in which `local_share` decides. `shards` tells which shard a subject belongs to: there is one, or in a `cluster` one for
each primary. `servers` parses the URL and connects, `version_markers` writes what has changed. The `health_checks` of
`machpay-gateway doctor` question the servers, and `diagnostics` judges what they answer.
"""

from machpay_gateway.limiters.redis.limiter import RedisLimiter

__all__ = ["RedisLimiter"]
