-- Take from windows and take slots, for one worker: all that it asks for in one turn, a subject's step whole or not at all.
--
-- KEYS   one hash a subject, see below; a subject may stand in several places, one after the other.
-- ARGV   worker's name, lease in seconds; then eight for each key:
--          limit in units, window in ms, concurrency in requests, version of the record,
--          cost of a request in units, requests wanted, slots the worker holds now (-1: as the step before left it),
--          units that were admitted while this server was away and are counted now, whatever the limit.
-- Returns five integers for each key:
--          requests granted (-1: the record has changed since), units left (below 0 when a tier was lowered),
--          slots left, ms until a unit frees (0: none is taken), ms until a refused request can have its cost (0: no wait helps).
--
-- The hash: `m` window in ms, `n` newest cell, `o` oldest cell with units, `t` units taken, `c0` to `c60` the cells' units,
-- `v` version, `f` slots held by all workers, `e` second in which the earliest lease may end,
-- `w` and a worker's name: the second in which its lease ends times 2^20, plus the slots it holds.
-- A cell is a 60th of the window, and the oldest of 61 counts whole: no window, however cut, holds more than its limit.
-- IDLE is how long a mark lasts: an admission must not shorten it.
local CELLS, SLOTS, IDLE = 61, 1048576, 660

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local worker, lease_ends = 'w' .. ARGV[1], tonumber(time[1]) + tonumber(ARGV[2])

local function cell(tick)
  return 'c' .. tick % CELLS
end

-- Count all that is taken as of *tick*: the cells are of another window, or of a clock that was set back further than one.
local function recount(key, taken, tick)
  local stale = {}
  for i = 1, CELLS do stale[i] = 'c' .. i - 1 end
  redis.call('HDEL', key, unpack(stale))
  if taken > 0 then redis.call('HSET', key, cell(tick), taken) end
end

-- Forget the cells that no longer count at *tick*; return what is taken then, and the oldest cell with units.
local function expire(key, taken, oldest, newest, tick)
  for old = oldest, math.min(tick - CELLS, newest) do
    local units = redis.call('HGET', key, cell(old))
    if units then
      taken = taken - units
      redis.call('HDEL', key, cell(old))
    end
  end
  if taken <= 0 then return 0, tick end
  oldest = math.max(oldest, tick - CELLS + 1)
  while oldest < tick and redis.call('HEXISTS', key, cell(oldest)) == 0 do oldest = oldest + 1 end
  return taken, oldest
end

-- Drop the workers whose lease has ended; return how many slots the others hold, and when the next lease may end.
local function living(key, second)
  local fields, held, earliest = redis.call('HGETALL', key), 0, nil
  for i = 1, #fields, 2 do
    if string.byte(fields[i]) == 119 then
      local ends = math.floor(fields[i + 1] / SLOTS)
      if ends <= second then
        redis.call('HDEL', key, fields[i])
      else
        held = held + fields[i + 1] % SLOTS
        earliest = math.min(earliest or ends, ends)
      end
    end
  end
  return held, earliest
end

-- The ms until *units* of what is taken are free.
local function frees_in(key, units, oldest, tick, width)
  local freed = 0
  for old = oldest, tick do
    freed = freed + (redis.call('HGET', key, cell(old)) or 0)
    if freed >= units then return math.ceil((old + CELLS) * width - now) end
  end
  return 0
end

local out = {}
for i = 1, #KEYS do
  local key, a = KEYS[i], i * 8 - 5
  local limit, window, slots, version = tonumber(ARGV[a]), tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])
  local cost, wanted, holds, owed = tonumber(ARGV[a + 4]), tonumber(ARGV[a + 5]), tonumber(ARGV[a + 6]), tonumber(ARGV[a + 7])
  local h = redis.call('HMGET', key, 'n', 'o', 't', 'm', 'v', 'f', 'e', worker)
  local width, tick = window / 60, math.floor(now * 60 / window)
  local newest, oldest, taken = tonumber(h[1]) or tick, tonumber(h[2]) or tick, tonumber(h[3]) or 0
  local stored, held, earliest = tonumber(h[5]), tonumber(h[6]) or 0, tonumber(h[7])
  local mine = (tonumber(h[8]) or 0) % SLOTS
  local granted, left, frees, wait = 0, 0, 0, 0

  if earliest and earliest <= lease_ends - ARGV[2] then
    held, earliest = living(key, tonumber(time[1]))
    mine = tonumber(redis.call('HGET', key, worker) or 0) % SLOTS
  end
  if holds >= 0 then held, mine = held - mine + holds, holds end

  -- A record that is behind says nothing of its tier either: only what the worker holds is taken from it.
  if stored and version < stored then
    granted, tick, oldest = -1, tonumber(h[1]), tonumber(h[2])
  else
    if h[4] and (tonumber(h[4]) ~= window or newest - tick >= CELLS) then
      taken = expire(key, taken, oldest, newest, math.floor(now * 60 / h[4]))
      recount(key, taken, tick)
      oldest = tick
    elseif newest < tick then
      taken, oldest = expire(key, taken, oldest, newest, tick)
    else
      tick = newest -- a clock that was set back a little stands still
    end
    left = limit - taken - owed
    granted = math.max(0, math.min(wanted, slots - held))
    if cost > 0 then
      granted = math.max(0, math.min(granted, math.floor(left / cost)))
    elseif left < 0 then
      granted = 0
    end
    local units = granted * cost + owed
    if units > 0 then
      redis.call('HINCRBY', key, cell(tick), units)
      if taken == 0 then oldest = tick end
      taken, left = taken + units, left - granted * cost
    end
    held, mine = held + granted, mine + granted
    if tonumber(h[4]) ~= window then redis.call('HSET', key, 'm', window) end
    if stored ~= version then redis.call('HSET', key, 'v', version) end
    if taken > 0 then frees = math.ceil((oldest + CELLS) * width - now) end
    if granted < wanted and left < cost then wait = frees_in(key, cost - left, oldest, tick, width) end
  end

  if mine > 0 then
    earliest = math.min(earliest or lease_ends, lease_ends)
    redis.call('HSET', key, 't', taken, 'f', held, worker, lease_ends * SLOTS + mine)
  else
    redis.call('HSET', key, 't', taken, 'f', held)
    if h[8] then redis.call('HDEL', key, worker) end
  end
  -- Once a second at most, for most steps come in the second of the one before.
  if earliest and earliest ~= tonumber(h[7]) then redis.call('HSET', key, 'e', earliest) end
  if oldest ~= tonumber(h[2]) then redis.call('HSET', key, 'o', oldest) end
  if tick ~= tonumber(h[1]) then
    redis.call('HSET', key, 'n', tick)
    redis.call('EXPIRE', key, math.max(IDLE, math.ceil(window / 900) + 60))
  end
  local n = #out
  out[n + 1], out[n + 2], out[n + 3], out[n + 4], out[n + 5] = granted, left, slots - held, frees, wait
end
return out
