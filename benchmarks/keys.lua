-- Load with many keys: wrk -s benchmarks/keys.lua URL -- FILE, where FILE holds one secret a line.
-- Each request carries the next secret in turn. All requests are formatted before the load begins, so that a turn
-- costs the load's core a table lookup.
local requests = {}
local turn = 0

function init(args)
  for secret in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format(nil, nil, {["Authorization"] = "Bearer " .. secret})
  end
  assert(#requests > 0, args[1] .. " holds no secret")
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end
