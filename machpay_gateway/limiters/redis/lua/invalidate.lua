-- Write the version markers of records that have changed: admit.lua answers -1 to steps of an older version.
--
-- KEYS   the state of each subject, as admit.lua packs it: it begins with the version, in 5 bytes.
-- ARGV   life of a marker in seconds; 1 if the versions hold even where newer ones are stored; then the version of each key.
-- Returns the number of keys.
local function packed(number)
  local text = ''
  for _ = 1, 5 do text, number = text .. string.char(number % 256), math.floor(number / 256) end
  return text
end

local is_final = ARGV[2] == '1'
local states = redis.call('MGET', unpack(KEYS))
for i, state in ipairs(states) do
  local version = tonumber(ARGV[i + 2])
  if not state then
    if not is_final then redis.call('SET', KEYS[i], packed(version) .. string.rep('\0', 13), 'EX', ARGV[1]) end
  else
    local stored = 0
    for byte = 5, 1, -1 do stored = stored * 256 + string.byte(state, byte) end
    if stored < version or is_final then redis.call('SETRANGE', KEYS[i], 0, packed(version)) end
    if redis.call('TTL', KEYS[i]) < tonumber(ARGV[1]) then redis.call('EXPIRE', KEYS[i], ARGV[1]) end
  end
end
return #KEYS
