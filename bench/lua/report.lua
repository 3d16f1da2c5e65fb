-- The end of every run: one line of JSON for load.py, times in microseconds.

local SHOWN = {1, 10, 25, 50, 75, 90, 95, 99, 99.9, 99.99}

-- wrk guesses what it would have measured at a constant rate: it adds, for
-- each slow answer, answers one mean interval apart (wrk's stats_correct).
-- Here the rate is whatever the server can do, so the guesses go out again,
-- from the slowest answer down, as they came in from the fastest up.
local function measured(summary, latency)
   local counts, values, total = {}, {}, 0
   for i = 1, #latency do
      local value, count = latency(i)
      values[i], counts[value] = value, count
   end
   local turns = math.floor(summary.requests / os.getenv("CONNECTIONS"))
   local interval = math.floor(summary.duration / math.max(turns, 1))
   for i = #values, 1, -1 do
      local value, count = values[i], counts[values[i]]
      local guess = value - interval
      while turns > 0 and value >= 2 * interval and guess > interval do
         if counts[guess] then
            counts[guess] = counts[guess] - count
         end
         guess = guess - interval
      end
      total = total + count
   end
   return values, counts, total
end

function done(summary, latency, requests)
   local values, counts, total = measured(summary, latency)
   local points, at, seen = {}, 0, 0
   for i, percent in ipairs(SHOWN) do
      while at < #values and seen < total * percent / 100 do
         at = at + 1
         seen = seen + counts[values[at]]
      end
      points[i] = string.format("[%g,%d]", percent, values[at] or 0)
   end
   local errors = summary.errors
   print(string.format(
      '\n{"requests":%d,"duration":%d,"errors":%d,"sampled":%d,"latency":[%s]}',
      summary.requests, summary.duration,
      errors.connect + errors.read + errors.write + errors.status
         + errors.timeout,
      total, table.concat(points, ",")))
end
