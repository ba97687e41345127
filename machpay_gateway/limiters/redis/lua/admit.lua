-- Take units of windows and concurrency slots for one worker: all the steps of one batch, each whole or not at all.
--
-- KEYS   one hash per step, the hash of its subject; the steps of one subject follow each other.
-- ARGV   worker's name, lease in seconds; then eight for each key:
--          limit in units, window in ms, concurrency in requests, version of the record,
--          cost of a request in units, requests wanted, slots the worker holds now (-1: as the step before left them),
--          backlog: units that were admitted during an outage and are counted now, whatever the limit.
-- Returns five integers for each key:
--          requests admitted (-1: the record has changed since), units left (below 0 when a tier was lowered),
--          slots left, ms until a unit frees (0: none is taken), ms until a refused request can have its cost (0: no wait helps).
--
-- The hash: `m` window in ms, `n` newest cell, `o` oldest cell with units, `t` units taken, `c0` to `c60` units per cell,
-- `v` version, `f` slots held by all workers, `e` second in which the earliest lease may expire,
-- `w` and a worker's name: the second in which its lease expires times 2^20, plus the slots it holds.
-- The rate limit is a sliding window of 61 cells, each a 60th of the window. The oldest, partly expired cell counts whole:
-- no interval as long as the window ever holds more than the limit.
-- IDLE is the life of a version marker in seconds: an admission must not shorten it.
local CELLS, SLOTS, IDLE = 61, 1048576, 660

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local worker, lease_ends = 'w' .. ARGV[1], tonumber(time[1]) + tonumber(ARGV[2])

local function cell(tick)
  return 'c' .. tick % CELLS
end

-- Move all units taken to the cell of *tick*: the cells are those of another window, or of a clock set back further than one.
local function recount(key, taken, tick)
  local stale = {}
  for i = 1, CELLS do stale[i] = 'c' .. i - 1 end
  redis.call('HDEL', key, unpack(stale))
  if taken > 0 then redis.call('HSET', key, cell(tick), taken) end
end

-- Drop the cells that have expired at *tick*; return the units taken then, and the oldest cell with units.
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

-- Drop the workers whose lease has expired; return the slots that the others hold, and when the next lease may expire.
local function drop_dead_workers(key, second)
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

-- Return the ms until *units* of those taken have expired.
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
  local cost, wanted, holds, backlog = tonumber(ARGV[a + 4]), tonumber(ARGV[a + 5]), tonumber(ARGV[a + 6]), tonumber(ARGV[a + 7])
  local h = redis.call('HMGET', key, 'n', 'o', 't', 'm', 'v', 'f', 'e', worker)
  local width, tick = window / 60, math.floor(now * 60 / window)
  local newest, oldest, taken = tonumber(h[1]) or tick, tonumber(h[2]) or tick, tonumber(h[3]) or 0
  local stored, held, earliest = tonumber(h[5]), tonumber(h[6]) or 0, tonumber(h[7])
  local mine = (tonumber(h[8]) or 0) % SLOTS
  local admitted, left, frees, wait = 0, 0, 0, 0

  if earliest and earliest <= lease_ends - ARGV[2] then
    held, earliest = drop_dead_workers(key, tonumber(time[1]))
    mine = tonumber(redis.call('HGET', key, worker) or 0) % SLOTS
  end
  if holds >= 0 then held, mine = held - mine + holds, holds end

  -- A stale record's tier is not trusted either: of its step, only the slots that the worker holds are stored.
  if stored and version < stored then
    admitted, tick, oldest = -1, tonumber(h[1]), tonumber(h[2])
  else
    if h[4] and (tonumber(h[4]) ~= window or newest - tick >= CELLS) then
      taken = expire(key, taken, oldest, newest, math.floor(now * 60 / h[4]))
      recount(key, taken, tick)
      oldest = tick
    elseif newest < tick then
      taken, oldest = expire(key, taken, oldest, newest, tick)
    else
      tick = newest -- after a clock step back within the window, the window stands still
    end
    left = limit - taken - backlog
    admitted = math.max(0, math.min(wanted, slots - held))
    if cost > 0 then
      admitted = math.max(0, math.min(admitted, math.floor(left / cost)))
    elseif left < 0 then
      admitted = 0
    end
    local units = admitted * cost + backlog
    if units > 0 then
      redis.call('HINCRBY', key, cell(tick), units)
      taken, left = taken + units, left - admitted * cost
    end
    held, mine = held + admitted, mine + admitted
    if tonumber(h[4]) ~= window then redis.call('HSET', key, 'm', window) end
    if stored ~= version then redis.call('HSET', key, 'v', version) end
    if taken > 0 then frees = math.ceil((oldest + CELLS) * width - now) end
    if admitted < wanted and left < cost then wait = frees_in(key, cost - left, oldest, tick, width) end
  end

  if mine > 0 then
    earliest = math.min(earliest or lease_ends, lease_ends)
    redis.call('HSET', key, 't', taken, 'f', held, worker, lease_ends * SLOTS + mine)
  else
    redis.call('HSET', key, 't', taken, 'f', held)
    if h[8] then redis.call('HDEL', key, worker) end
  end
  -- Only when they change, which is once a second at most: most steps come in the second of the one before.
  if earliest and earliest ~= tonumber(h[7]) then redis.call('HSET', key, 'e', earliest) end
  if oldest ~= tonumber(h[2]) then redis.call('HSET', key, 'o', oldest) end
  if tick ~= tonumber(h[1]) then
    redis.call('HSET', key, 'n', tick)
    redis.call('EXPIRE', key, math.max(IDLE, math.ceil(window / 900) + 60))
  end
  local n = #out
  out[n + 1], out[n + 2], out[n + 3], out[n + 4], out[n + 5] = admitted, left, slots - held, frees, wait
end
return out
