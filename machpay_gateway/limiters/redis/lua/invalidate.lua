-- Say which version a subject's record is at, so that whoever still knows an older one is told.
--
-- KEYS   one hash a subject. ARGV: seconds that a mark outlives what it is for; then the version for each key.
-- Returns the number of keys.
for i = 1, #KEYS do
  local stored = tonumber(redis.call('HGET', KEYS[i], 'v') or 0)
  if stored < tonumber(ARGV[i + 1]) then redis.call('HSET', KEYS[i], 'v', ARGV[i + 1]) end
  if redis.call('TTL', KEYS[i]) < tonumber(ARGV[1]) then redis.call('EXPIRE', KEYS[i], ARGV[1]) end
end
return #KEYS
