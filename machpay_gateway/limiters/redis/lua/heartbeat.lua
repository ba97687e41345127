-- Register a worker as alive, or (with a lease of 0) as gone; return the number of living workers.
--
-- KEYS   one sorted set of the workers, scored by the second in which their lease expires.
-- ARGV   worker's name, lease in seconds.
local now, lease = tonumber(redis.call('TIME')[1]), tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if lease > 0 then
  redis.call('ZADD', KEYS[1], now + lease, ARGV[1])
  redis.call('EXPIRE', KEYS[1], 2 * lease)
else
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return redis.call('ZCARD', KEYS[1])
