"""The shared servers, for their own tests."""

from tests.redises.fixtures import empty_redis, redis_cluster, redis_sentinels, redis_server

__all__ = ["empty_redis", "redis_cluster", "redis_sentinels", "redis_server"]
