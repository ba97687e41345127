-- Admit requests for one worker: all the steps of one batch, each whole or not at all.
--
-- A step is of one caller. It has a part for each subject whose limits apply: first the caller's own, whose version is
-- compared, then those that the caller shares with others, such as its account.
--
-- KEYS   the state of the subject of each part of each step.
-- ARGV   worker's name, lease in seconds; then for each step:
--          parts, version of the record, cost of a request in units, requests wanted;
--        then for each part:
--          windows, quotas, 1 if the limits are enforced (0: they only count), concurrency in requests (-1: no limit),
--          slots the worker holds now (-1 - n: as the step before left them, less n that it has released since);
--          for each window: limit in units, length in ms, backlog;
--          for each quota: limit in units, backlog, `d` or `m` for the calendar day or month (UTC), its number by the
--            worker's clock, the seconds in which that begins and ends, units of it that are counted elsewhere (-1: not
--            known; they matter when the state has no count);
--        a backlog is units that were admitted without this script and are counted now, whatever the limits.
-- Returns the number of the day since the epoch; then integers for each step:
--          requests admitted (-1: the record has changed since; -2: a quota has no count, and the worker sent none),
--          of these, requests within the limits that only count,
--          ms until a refused request can have its cost (0: no wait helps);
--        then for each part:
--          for each window: units left (below 0 when overdrawn), ms until a unit frees (0: none is taken);
--          for each quota: units left, ms until its period ends;
--          if its concurrency is limited: slots left.
--
-- The state is a packed string, because one GET and one SET cost less than the fields of a hash:
--   HEAD     version, slots held by all workers, second in which the earliest lease may expire, bytes of all workers,
--            windows, quotas;
--   for each worker that holds slots: the length of its name, its name, and LEASE: slots, second in which that expires;
--   WINDOW   for each: length in ms, newest cell, oldest cell with units, units taken, units in the newest cell, number
--            of cells that follow: the units in each cell from the oldest to the one before the newest;
--   QUOTA    for each: byte of `d` or `m`, number of the day or month, units taken.
--
-- A rate limit is a sliding window of cells: each a 60th of a window of a minute or more, a 12th of short ones. The
-- oldest, partly expired cell counts whole: no interval as long as the window ever holds more than the limit.
-- IDLE is the life of a version marker in seconds: an admission must not shorten it.
local HEAD, WINDOW, QUOTA, LEASE = '<I5I4I5I2BB', '<I5I5I5I6I6B', '<BI4I6', '<I4I5'
local LEASE_BYTES, CELL_BYTES, QUOTA_BYTES, IDLE = 9, 6, 11, 660
local call, floor, ceil, min, max, sub = redis.call, math.floor, math.ceil, math.min, math.max, string.sub
local struct = struct or (function()
  -- For servers without this library of Redis, such as fakeredis: the unsigned little-endian integers that we have.
  local function sizes(format)
    return string.gmatch(format, '[BI](%d*)')
  end
  local function encode(format, ...)
    local text, n = '', 0
    for size in sizes(format) do
      n = n + 1
      local number = select(n, ...)
      for _ = 1, tonumber(size) or 1 do
        text, number = text .. string.char(number % 256), floor(number / 256)
      end
    end
    return text
  end
  local function decode(format, text, at)
    local numbers, n = {}, 0
    at = at or 1
    for size in sizes(format) do
      size, n = tonumber(size) or 1, n + 1
      numbers[n] = 0
      for byte = at + size - 1, at, -1 do numbers[n] = numbers[n] * 256 + string.byte(text, byte) end
      at = at + size
    end
    numbers[n + 1] = at
    return unpack(numbers)
  end
  return { pack = encode, unpack = decode }
end)()
local pack, unpack_at = struct.pack, struct.unpack

local time = redis.call('TIME')
local second = tonumber(time[1])
local now = second * 1000 + floor(time[2] / 1000)
local me, lease_ends = string.char(#ARGV[1]) .. ARGV[1], second + ARGV[2]
-- Of one step, by their indexes. The tables serve every step.
local parts, windows, quotas = {}, {}, {}

-- Return the functions for what is rare. They are made when needed: making them always costs a lone step a fifth more.
local function make_rare()
  local rare = {}

  -- Drop what has expired from window *w*, and make *tick* its newest cell.
  local function advance(w)
    local tick, oldest, taken = w.tick, w.oldest, w.taken
    if taken == 0 or w.newest < tick - w.cells then
      w.newest, w.oldest, w.taken, w.units, w.ring = tick, tick, 0, 0, ''
      return
    end
    local ring, at, units = w.ring .. pack('<I6', w.units) .. string.rep('\0\0\0\0\0\0', tick - w.newest - 1), 1
    while oldest < tick do
      units = unpack_at('<I6', ring, at)
      if oldest >= tick - w.cells and units > 0 then break end
      taken, oldest, at = taken - units, oldest + 1, at + CELL_BYTES
    end
    w.newest, w.oldest, w.taken, w.units, w.ring = tick, oldest, taken, 0, sub(ring, at)
  end

  -- Let window *w* have *units* that are all taken in its present cell.
  local function recount(w, units)
    w.newest, w.oldest, w.taken, w.units, w.ring = w.tick, w.tick, units, units, ''
  end

  -- Fill window *w* from *state* at *at*; return where it ends.
  local function read_window(w, state, at)
    local _, newest, oldest, taken, units, count, from = unpack_at(WINDOW, state, at)
    w.newest, w.oldest, w.taken, w.units = newest, oldest, taken, units
    w.ring = sub(state, from, from + count * CELL_BYTES - 1)
    if newest < w.tick then
      advance(w)
    elseif newest > w.tick + w.cells then
      recount(w, taken) -- the clock was set back by more than the window; within it, the window stands still
    end
    return from + count * CELL_BYTES
  end

  -- Fill windows[from] to windows[to] from the *count* windows in *state* from *at* on; return where they end. A window
  -- of a length that is not there is new, and gets the units of the fullest: an empty one would admit its limit again.
  function rare.read_windows(state, at, count, from, to)
    local by_length, fullest, is_changed = {}, 0, count ~= to - from + 1
    local begin = at
    for i = from, to do
      if is_changed or unpack_at('<I5', state, at) ~= windows[i].length then
        is_changed = true
        break
      end
      at = read_window(windows[i], state, at)
    end
    if not is_changed then return at end
    at = begin
    for _ = 1, count do
      local length = unpack_at('<I5', state, at)
      local cells = length < 60000 and max(12, floor(length / 1000)) or 60
      local w = { cells = cells, tick = floor(now * cells / length) }
      at = read_window(w, state, at)
      by_length[length], fullest = w, max(fullest, w.taken)
    end
    for i = from, to do
      local w = windows[i]
      local same = by_length[w.length]
      if same then
        w.newest, w.oldest, w.taken, w.units, w.ring = same.newest, same.oldest, same.taken, same.units, same.ring
      else
        recount(w, fullest)
      end
    end
    return at
  end

  -- Fill quotas[from] to quotas[to] from the *count* quotas in *state* from *at* on; return the text of others.
  function rare.read_quotas(state, at, count, from, to)
    local others = ''
    for _ = 1, count do
      local kind, number, units = unpack_at(QUOTA, state, at)
      local is_wanted = false
      for i = from, to do
        local q = quotas[i]
        if q.kind == kind then
          is_wanted = true
          if number >= q.number then q.number, q.taken = number, units else q.taken = 0 end
        end
      end
      if not is_wanted then others = others .. sub(state, at, at + QUOTA_BYTES - 1) end
      at = at + QUOTA_BYTES
    end
    return others
  end

  -- Return the number of the present period of *kind*, and the second in which it ends: the arithmetic of the civil
  -- calendar, in years that begin in March.
  function rare.period(kind)
    local today = floor(second / 86400)
    if kind == 100 then return today, (today + 1) * 86400 end
    local function month_of(day)
      local shifted = day + 719468
      local era = floor(shifted / 146097)
      local of_era = shifted - era * 146097
      local year = floor((of_era - floor(of_era / 1460) + floor(of_era / 36524) - floor(of_era / 146096)) / 365)
      local of_year = of_era - (365 * year + floor(year / 4) - floor(year / 100))
      local month = floor((5 * of_year + 2) / 153)
      return (era * 400 + year) * 12 + month, day - of_year + floor((153 * month + 2) / 5)
    end
    local month, first = month_of(today)
    local _, following = month_of(first + 31)
    return month, following * 86400
  end

  -- Return the slots in *workers* whose lease has not expired, when the next one may expire, and the text of those.
  function rare.living(workers)
    local held, earliest, text, at = 0, 0, '', 1
    while at <= #workers do
      local from = at + 1 + string.byte(workers, at)
      local slots, ends, after = unpack_at(LEASE, workers, from)
      if ends > second then
        held, text = held + slots, text .. sub(workers, at, after - 1)
        earliest = earliest == 0 and ends or min(earliest, ends)
      end
      at = after
    end
    return held, earliest, text
  end

  -- Return the ms until *units* of those taken in window *w* have expired.
  function rare.frees_in(w, units)
    local cell, at, freed = w.oldest, 1, 0
    while true do
      freed = freed + (cell < w.newest and unpack_at('<I6', w.ring, at) or w.units)
      if freed >= units then return ceil((cell + w.cells + 1) * w.width - now) end
      if cell == w.newest then return 0 end
      cell, at = cell + 1, at + CELL_BYTES
    end
  end

  return rare
end

local rare
local out, a, k, o = { floor(second / 86400) }, 3, 0, 1
while a <= #ARGV do
  local count, version = tonumber(ARGV[a]), tonumber(ARGV[a + 1])
  local cost, wanted = tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])
  local admitted, within, outcome, last_window, last_quota = wanted, wanted, nil, 0, 0
  a = a + 4

  -- Read every part, and find out how many requests all of them admit.
  for p = 1, count do
    local state, part = call('GET', KEYS[k + p]), parts[p]
    local first_window, first_quota = last_window + 1, last_quota + 1
    last_window, last_quota = last_window + ARGV[a], last_quota + ARGV[a + 1]
    local enforced, slots, holds = ARGV[a + 2] == '1', tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4])
    a = a + 5

    local stored, held, earliest, workers, mine, at, window_count, quota_count = nil, 0, 0, '', 0, 1, 0, 0
    if state then
      local bytes
      stored, held, earliest, bytes, window_count, quota_count, at = unpack_at(HEAD, state)
      if bytes > 0 then
        workers, at = sub(state, at, at + bytes - 1), at + bytes
        if earliest <= second then
          rare = rare or make_rare()
          held, earliest, workers = rare.living(workers)
        end
        local from, to = string.find(workers, me, 1, true)
        if from then
          mine = unpack_at('<I4', workers, to + 1)
          workers = sub(workers, 1, from - 1) .. sub(workers, to + LEASE_BYTES + 1)
        end
      end
    end
    if holds < 0 then holds = max(0, mine + 1 + holds) end
    held = held - mine + holds
    -- A stale record's limits are not trusted either: of its step, only the slots that the worker holds are stored.
    if p == 1 and stored and version < stored then outcome = -1 end

    local begin, moved, others = at, false, ''
    for n = first_window, last_window do
      local w, length = windows[n], tonumber(ARGV[a + 1])
      local cells = length < 60000 and max(12, floor(length / 1000)) or 60
      local tick = floor(now * cells / length)
      if not w then
        w = {
          limit = 0, length = 0, backlog = 0, cells = 0, width = 0, tick = 0, newest = 0, oldest = 0, taken = 0,
          units = 0, ring = '',
        }
        windows[n] = w
      end
      w.limit, w.length, w.backlog = tonumber(ARGV[a]), length, tonumber(ARGV[a + 2])
      w.cells, w.width, w.tick = cells, length / cells, tick
      a = a + 3
      if not state then
        w.newest, w.oldest, w.taken, w.units, w.ring = tick, tick, 0, 0, ''
      elseif not moved and n - first_window < window_count then
        local same, newest, oldest, taken, units, following, from = unpack_at(WINDOW, state, at)
        at = from + following * CELL_BYTES
        w.newest, w.oldest, w.taken, w.units = newest, oldest, taken, units
        w.ring = following > 0 and sub(state, from, at - 1) or ''
        moved = same ~= length or newest ~= tick
      end
    end
    for n = first_quota, last_quota do
      local kind, number, ends = string.byte(ARGV[a + 2]), tonumber(ARGV[a + 3]), tonumber(ARGV[a + 5])
      if second < tonumber(ARGV[a + 4]) or second >= ends then
        rare = rare or make_rare()
        number, ends = rare.period(kind)
      end
      quotas[n] = {
        limit = tonumber(ARGV[a]), backlog = tonumber(ARGV[a + 1]), kind = kind, number = number,
        ends = ends * 1000 - now, taken = tonumber(ARGV[a + 6]),
      }
      a = a + 7
    end

    if not outcome then
      if state and (moved or window_count ~= last_window - first_window + 1) then
        rare = rare or make_rare()
        moved, at = true, rare.read_windows(state, begin, window_count, first_window, last_window)
      end
      if quota_count > 0 then
        local same, from = quota_count == last_quota - first_quota + 1, at
        for n = first_quota, same and last_quota or 0 do
          local q, kind, number = quotas[n], nil, nil
          kind, number, q.taken, at = unpack_at(QUOTA, state, at)
          same = same and kind == q.kind and number == q.number
        end
        if not same then
          rare = rare or make_rare()
          others = rare.read_quotas(state, from, quota_count, first_quota, last_quota)
        end
      end
      local room = slots < 0 and wanted or min(wanted, slots - held)
      for n = first_window, last_window do
        local w = windows[n]
        local left = w.limit - w.taken - w.backlog
        if cost > 0 then room = min(room, floor(left / cost)) elseif left < 0 then room = 0 end
      end
      for n = first_quota, last_quota do
        local q = quotas[n]
        local left = q.limit - q.taken - q.backlog
        if q.taken < 0 then outcome = -2 end
        if cost > 0 then room = min(room, floor(left / cost)) elseif left < 0 then room = 0 end
      end
      if enforced then admitted = min(admitted, room) else within = min(within, room) end
    end
    if not part then
      part = {
        state = '', begin = 0, moved = false, enforced = true, slots = 0, held = 0, mine = 0, earliest = 0,
        workers = '', others = '', stored = 0, last_window = 0, last_quota = 0, window_count = 0, quota_count = 0,
      }
      parts[p] = part
    end
    part.state, part.begin, part.moved, part.enforced = state, begin, moved, enforced
    part.slots, part.held = slots, held
    part.mine, part.earliest, part.workers, part.others, part.stored = holds, earliest, workers, others, stored or 0
    part.last_window, part.last_quota = last_window, last_quota
    part.window_count, part.quota_count = window_count, quota_count
  end
  if outcome then admitted = 0 end
  admitted = max(0, admitted)
  within = max(0, min(within, admitted))

  -- Take what is admitted from every part, and store it.
  local wait, answer, first_window, first_quota = 0, o, 1, 1
  o = o + 3
  for p = 1, count do
    local part = parts[p]
    local held, mine, earliest, workers, slots = part.held, part.mine, part.earliest, part.workers, part.slots
    local taken, limits, life = part.enforced and admitted or within, '', IDLE
    local is_refused = part.enforced and admitted < wanted
    if slots >= 0 then held, mine = held + taken, mine + taken end
    if mine > 0 then
      earliest = earliest > 0 and min(earliest, lease_ends) or lease_ends
      workers = workers .. me .. pack(LEASE, mine, lease_ends)
    end
    for n = first_window, part.last_window do
      local w = windows[n]
      local units, ring = taken * cost + w.backlog, w.ring
      local total = w.taken + units
      local left = w.limit - total
      w.taken, w.units = total, w.units + units
      limits = limits .. pack(WINDOW, w.length, w.newest, w.oldest, total, w.units, #ring / CELL_BYTES) .. ring
      o = o + 2
      out[o - 1], out[o] = left, total > 0 and ceil((w.oldest + w.cells + 1) * w.width - now) or 0
      if is_refused and left < cost then
        rare = rare or make_rare()
        wait = max(wait, rare.frees_in(w, cost - left))
      end
    end
    for n = first_quota, part.last_quota do
      local q = quotas[n]
      local total = q.taken + taken * cost + q.backlog
      limits = limits .. pack(QUOTA, q.kind, q.number, max(0, total))
      o = o + 2
      out[o - 1], out[o] = q.limit - total, q.ends
      if is_refused and q.limit - total < cost then wait = max(wait, q.ends) end
    end
    if slots >= 0 then
      o = o + 1
      out[o] = slots - held
    end

    local version_now = p == 1 and version or 0
    local is_kept = part.state and not part.moved and part.last_window >= first_window
    local window_count, quota_count = part.last_window - first_window + 1, part.last_quota - first_quota + 1
    if outcome then
      version_now, window_count, quota_count = part.stored, part.window_count, part.quota_count
      limits, is_kept = part.state and sub(part.state, part.begin) or '', part.state
    elseif part.others ~= '' then
      limits, quota_count = limits .. part.others, quota_count + #part.others / QUOTA_BYTES
    end
    local state = pack(HEAD, version_now, held, earliest, #workers, window_count, quota_count) .. workers .. limits
    if is_kept then
      call('SET', KEYS[k + p], state, 'KEEPTTL')
    else
      for n = first_window, part.last_window do life = max(life, ceil(windows[n].length / 900) + 60) end
      for n = first_quota, part.last_quota do life = max(life, ceil(quotas[n].ends / 1000) + 60) end
      call('SET', KEYS[k + p], state, 'EX', life)
    end
    first_window, first_quota = part.last_window + 1, part.last_quota + 1
  end
  out[answer + 1], out[answer + 2], out[answer + 3] = outcome or admitted, within, wait
  k = k + count
end
return out
