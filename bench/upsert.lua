-- wrk script: single-point upserts of a 128-dimensional vector into the collection "load".
--   wrk -t1 -c1 -d5 -s bench/upsert.lua http://127.0.0.1:8080     (then -c64)
local counter = 0
local thread_number = 0
local values = {}
for i = 1, 128 do values[i] = string.format("%.4f", (i * 37 % 101) / 101) end
local body = '{"values":[' .. table.concat(values, ",") .. ']}'
local headers = { ["content-type"] = "application/json" }

function setup(thread)
  thread:set("thread_number", thread_number)
  thread_number = thread_number + 1
end

function request()
  counter = counter + 1
  local id = thread_number * 100000000 + counter
  return wrk.format("PUT", "/collections/load/points/" .. id, headers, body)
end

function done(summary, latency)
  local errors = summary.errors.status + summary.errors.connect + summary.errors.read
  io.write(string.format("%.0f upserts/s, p50 %.3f ms, p99 %.3f ms, errors %d\n",
    summary.requests / (summary.duration / 1e6), latency:percentile(50) / 1000,
    latency:percentile(99) / 1000, errors))
end
