"""The limiter over every worker: windows, slots and versions in Redis or Valkey, decided there in one step.

The path of a request through these files: `limiter` finds its `subject` and submits it to the `batcher`, which gathers
the steps of one turn of the event loop into one call of `scripts` on a pipelined `connection` (or a `cluster` of them);
the reply resolves every request that waits. `connection_supervisor` keeps the connection up and declares outages, in
which `local_share` decides. `servers` parses the URL and connects, `version_markers` writes what has changed. The
`health_checks` of `machpay-gateway doctor` question the servers, and `diagnostics` judges what they answer.
"""

from machpay_gateway.limiters.redis.limiter import RedisLimiter

__all__ = ["RedisLimiter"]
