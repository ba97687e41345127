-- Write the version markers of records that have changed: admit.lua answers -1 to steps of an older version.
--
-- KEYS   one hash per subject.
-- ARGV   life of a marker in seconds; then the version for each key.
-- Returns the number of keys.
for i = 1, #KEYS do
  local stored = tonumber(redis.call('HGET', KEYS[i], 'v') or 0)
  if stored < tonumber(ARGV[i + 1]) then redis.call('HSET', KEYS[i], 'v', ARGV[i + 1]) end
  if redis.call('TTL', KEYS[i]) < tonumber(ARGV[1]) then redis.call('EXPIRE', KEYS[i], ARGV[1]) end
end
return #KEYS
