-- Admit requests for one worker: all the steps of one batch, each whole or not at all.
--
-- A step is of one caller. It has a part for each subject whose limits apply: first the caller's own, whose version is
-- compared, then those that the caller shares with others, such as its account.
--
-- KEYS   for each step: the version marker of its group, if the step has a version of it; then the state of the subject of
--        each part.
-- ARGV   worker's name, lease in seconds; then one packed string for each step, because a number costs less in it than as
--        an argument of its own:
--   STEP     parts, version of the record, version of its group (0: none), cost of a request in units, requests wanted;
--   then for each part:
--   PART     windows, quotas, 1 if the limits are enforced (0: they only count), slots + 1 of the concurrency (0: no
--            limit), 1 if slots that the worker holds follow (0: slots that it released since the step before), slots;
--   LIMIT    for each window: limit in units, length in ms, backlog;
--   CALENDAR for each quota: limit in units, backlog, `d` or `m` for the calendar day or month (UTC), its number by the
--            worker's clock, the seconds in which that begins and ends, 1 + units of it that are stored elsewhere (0: not
--            known), the number of the newest batch that those have, the second in which the worker connected, batches;
--   BATCH    for each of these: its number, and how many units of the backlog it has stored;
--        a backlog is units that were admitted without this script and are counted now, whatever the limits; of a quota,
--        but for those that its count started from.
-- Returns the number of the day since the epoch; then integers for each step:
--          requests admitted (-1: the record or its group has changed since; -2: a quota has no count that was compared with
--          the stored units since the worker connected, and it sent none),
--          of these, requests within the limits that only count,
--          ms until a refused request can have its cost (0: no wait helps);
--        then for each part:
--          for each window: units left (below 0 when overdrawn), ms until a unit frees (0: none is taken);
--          for each quota: units left, ms until its period ends;
--          if its concurrency is limited: slots left.
--
-- The state is a packed string, because reading and writing one costs less than the fields of a hash:
--   HEAD     version, slots held by all workers, second in which the earliest lease may expire, bytes of all workers,
--            windows, quotas;
--   for each worker that holds slots: the length of its name, its name, and LEASE: slots, second in which that expires;
--   WINDOW   for each: length in ms, newest cell, oldest cell with units, units taken, units in the newest cell, number
--            of cells that follow: the units in each cell from the oldest to the one before the newest;
--   QUOTA    for each: byte of `d` or `m`, number of the day or month, units taken, the number of the newest batch of the
--            stored units that the count started from, the second of the newest connection that it was compared for.
--            The release before writes and reads the first three alone, OLD_QUOTA, beside this one.
--
-- A rate limit is a sliding window of cells: each a 60th of a window of a minute or more, a 12th of short ones. The
-- oldest, partly expired cell counts whole: no interval as long as the window ever holds more than the limit.
-- IDLE is the life of a version marker in seconds: an admission must not shorten it.
local STEP, PART, LIMIT, CALENDAR = '<BI5I5I5I4', '<BBBI4BI4', '<I6I5I6', '<I6I6BI4I5I5I6I6I5B'
local HEAD, WINDOW, QUOTA, LEASE, BATCH = '<I5I4I5I2BB', '<I5I5I5I6I6B', '<BI4I6I6I5', '<I4I5', '<I6I6'
local OLD_QUOTA, OLD_QUOTA_BYTES = '<BI4I6', 11
local MARKER = '<I5'
local LEASE_BYTES, CELL_BYTES, QUOTA_BYTES, BATCH_BYTES, IDLE = 9, 6, 22, 12, 660
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
-- The states by the first place of their key; those that changed have a life in seconds, or 0 if they keep theirs.
local states, places, lives = call('MGET', unpack(KEYS, 1, min(#KEYS, 1000))), {}, {}
for from = 1001, #KEYS, 1000 do
  for i, state in ipairs(call('MGET', unpack(KEYS, from, min(#KEYS, from + 999)))) do states[from + i - 1] = state end
end
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
    local others, is_old = '', #state - at + 1 < count * QUOTA_BYTES
    for _ = 1, count do
      local kind, number, units, batch, compared = unpack_at(is_old and OLD_QUOTA or QUOTA, state, at)
      -- Of a day or a month: the release before takes parts of what it does not know for quotas of other kinds.
      local is_other = kind == 100 or kind == 109
      if is_old then batch, compared = 0, nil end
      for i = from, to do
        local q = quotas[i]
        if q.kind == kind then
          is_other = false
          if number >= q.number then
            q.number, q.taken, q.batch, q.compared = number, units, batch, compared or q.connected
          else
            -- Nothing of a new period is in the count.
            q.taken, q.batch, q.compared = 0, 0, compared or q.connected
          end
        end
      end
      if is_other then others = others .. pack(QUOTA, kind, number, units, batch, compared or 0) end
      at = at + (is_old and OLD_QUOTA_BYTES or QUOTA_BYTES)
    end
    return others
  end

  -- Compare the count of quota *q* with the stored units, if the worker sent them: a server that was restored from a
  -- snapshot has an old count. Return false when it sent none.
  function rare.compare(q)
    if q.seed < 0 then return false end
    if q.seed > q.taken then q.taken, q.batch = q.seed, q.seed_batch end
    q.compared = q.connected
    return true
  end

  -- Take from the backlog of quota *q* of *step* what its count started from.
  function rare.drop_stored(q, step)
    for from = q.at, q.at + (q.batches - 1) * BATCH_BYTES, BATCH_BYTES do
      local number, units = unpack_at(BATCH, step, from)
      if number <= q.batch then q.backlog = max(0, q.backlog - units) end
    end
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
local out, k, o = { floor(second / 86400) }, 0, 1
for argument = 3, #ARGV do
  local step = ARGV[argument]
  local count, version, group_version, cost, wanted, a = unpack_at(STEP, step)
  local admitted, within, outcome, last_window, last_quota = wanted, wanted, nil, 0, 0
  if group_version > 0 then
    k = k + 1
    if states[k] and unpack_at(MARKER, states[k]) > group_version then outcome = -1 end
  end

  -- Read every part, and find out how many requests all of them admit.
  for p = 1, count do
    local place = places[KEYS[k + p]]
    if not place then
      place = k + p
      places[KEYS[place]] = place
    end
    local state, part = states[place], parts[p]
    local first_window, first_quota = last_window + 1, last_quota + 1
    local own_windows, own_quotas, enforced, slots, in_full, holds
    own_windows, own_quotas, enforced, slots, in_full, holds, a = unpack_at(PART, step, a)
    last_window, last_quota, slots = last_window + own_windows, last_quota + own_quotas, slots - 1

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
    if in_full == 0 then holds = max(0, mine - holds) end
    held = held - mine + holds
    -- A stale record's limits are not trusted either: of its step, only the slots that the worker holds are stored.
    if p == 1 and stored and version < stored then outcome = -1 end

    local begin, moved, others = at, false, ''
    for n = first_window, last_window do
      local limit, length, backlog
      limit, length, backlog, a = unpack_at(LIMIT, step, a)
      local cells = length < 60000 and max(12, floor(length / 1000)) or 60
      local tick, w = floor(now * cells / length), windows[n]
      if not w then
        w = {
          limit = limit, length = length, backlog = backlog, cells = cells, width = length / cells, tick = tick,
          newest = tick, oldest = tick, taken = 0, units = 0, ring = '',
        }
        windows[n] = w
      else
        w.limit, w.length, w.backlog = limit, length, backlog
        w.cells, w.width, w.tick = cells, length / cells, tick
        if not state then w.newest, w.oldest, w.taken, w.units, w.ring = tick, tick, 0, 0, '' end
      end
      if state and not moved and n - first_window < window_count then
        local same, newest, oldest, taken, units, following, from = unpack_at(WINDOW, state, at)
        at = from + following * CELL_BYTES
        w.newest, w.oldest, w.taken, w.units = newest, oldest, taken, units
        w.ring = following > 0 and sub(state, from, at - 1) or ''
        moved = same ~= length or newest ~= tick
      end
    end
    for n = first_quota, last_quota do
      local limit, backlog, kind, number, begins, ends, seed, batch, connected, batches
      limit, backlog, kind, number, begins, ends, seed, batch, connected, batches, a = unpack_at(CALENDAR, step, a)
      if second < begins or second >= ends then
        rare = rare or make_rare()
        number, ends = rare.period(kind)
      end
      quotas[n] = {
        limit = limit, backlog = backlog, kind = kind, number = number, ends = ends * 1000 - now, taken = seed - 1,
        seed = seed - 1, batch = batch, seed_batch = batch, connected = connected, compared = connected,
        batches = batches, at = a,
      }
      a = a + batches * BATCH_BYTES
    end

    if not outcome then
      if state and (moved or window_count ~= own_windows) then
        rare = rare or make_rare()
        moved, at = true, rare.read_windows(state, begin, window_count, first_window, last_window)
      end
      if quota_count > 0 then
        local same, from = quota_count == own_quotas and #state - at + 1 >= quota_count * QUOTA_BYTES, at
        for n = first_quota, same and last_quota or 0 do
          local q, kind, number, taken, batch, compared = quotas[n], nil, nil, nil, nil, nil
          kind, number, taken, batch, compared, at = unpack_at(QUOTA, state, at)
          same = same and kind == q.kind and number == q.number
          if same then q.taken, q.batch, q.compared = taken, batch, compared end
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
        if q.compared < q.connected then
          rare = rare or make_rare()
          if not rare.compare(q) then outcome = -2 end
        end
        if q.batches > 0 then
          rare = rare or make_rare()
          rare.drop_stored(q, step)
        end
        local left = q.limit - q.taken - q.backlog
        if q.taken < 0 then outcome = -2 end
        if cost > 0 then room = min(room, floor(left / cost)) elseif left < 0 then room = 0 end
      end
      if enforced > 0 then admitted = min(admitted, room) else within = min(within, room) end
    end
    stored = stored or 0
    if part then
      part.place, part.begin, part.moved, part.enforced, part.slots = place, begin, moved, enforced, slots
      part.held, part.mine, part.earliest, part.workers = held, holds, earliest, workers
      part.others, part.stored, part.last_window, part.last_quota = others, stored, last_window, last_quota
      part.window_count, part.quota_count = window_count, quota_count
    else
      parts[p] = {
        place = place, begin = begin, moved = moved, enforced = enforced, slots = slots, held = held, mine = holds,
        earliest = earliest, workers = workers, others = others, stored = stored, last_window = last_window,
        last_quota = last_quota, window_count = window_count, quota_count = quota_count,
      }
    end
  end
  if outcome then admitted = 0 end
  admitted = max(0, admitted)
  within = max(0, min(within, admitted))

  -- Take what is admitted from every part.
  local wait, answer, first_window, first_quota = 0, o, 1, 1
  o = o + 3
  for p = 1, count do
    local part = parts[p]
    local held, mine, earliest, workers, slots = part.held, part.mine, part.earliest, part.workers, part.slots
    local taken, limits, state = part.enforced > 0 and admitted or within, '', states[part.place]
    local is_refused = part.enforced > 0 and admitted < wanted
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
      limits = limits .. pack(QUOTA, q.kind, q.number, max(0, total), q.batch, q.compared)
      o = o + 2
      out[o - 1], out[o] = q.limit - total, q.ends
      if is_refused and q.limit - total < cost then wait = max(wait, q.ends) end
    end
    if slots >= 0 then
      o = o + 1
      out[o] = slots - held
    end

    local version_now, life = p == 1 and version or 0, 0
    local window_count, quota_count = part.last_window - first_window + 1, part.last_quota - first_quota + 1
    if outcome then
      version_now, window_count, quota_count = part.stored, part.window_count, part.quota_count
      limits = state and sub(state, part.begin) or ''
      if not state then life = IDLE end
    else
      if part.others ~= '' then
        limits, quota_count = limits .. part.others, quota_count + #part.others / QUOTA_BYTES
      end
      if not state or part.moved or window_count < 1 then
        life = IDLE
        for n = first_window, part.last_window do life = max(life, ceil(windows[n].length / 900) + 60) end
        for n = first_quota, part.last_quota do life = max(life, ceil(quotas[n].ends / 1000) + 60) end
      end
    end
    local head = pack(HEAD, version_now, held, earliest, #workers, window_count, quota_count)
    local packed = head .. workers .. limits
    if taken > 0 or not state or sub(state, 1, #packed) ~= packed then
      states[part.place], lives[part.place] = packed, max(life, lives[part.place] or 0)
    end
    first_window, first_quota = part.last_window + 1, part.last_quota + 1
  end
  out[answer + 1], out[answer + 2], out[answer + 3] = outcome or admitted, within, wait
  k = k + count
end

-- Store each state once, whatever number of steps changed it. SETRANGE costs less than SET with KEEPTTL. It leaves the
-- rest of a longer state behind, which nobody reads, until the next cell begins.
for place, life in pairs(lives) do
  if life > 0 then
    call('SET', KEYS[place], states[place], 'EX', life)
  else
    call('SETRANGE', KEYS[place], 0, states[place])
  end
end
return out
