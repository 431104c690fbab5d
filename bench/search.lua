-- wrk script: top-10 searches with one 784-dimensional query in the collection "small". With ten
-- points in it the engine's share is about a microsecond, so the round trip is the HTTP overhead.
--   wrk -t1 -c1 -d5 -s bench/search.lua http://127.0.0.1:8080
local values = {}
for i = 1, 784 do values[i] = string.format("%d", (i * 37) % 256) end
wrk.method = "POST"
wrk.path = "/collections/small/search/topk"
wrk.headers["content-type"] = "application/json"
wrk.body = '{"query":[' .. table.concat(values, ",") .. '],"limit":10,"metric":"l2"}'

function done(summary, latency)
  io.write(string.format("%.0f searches/s, p50 %.0f us, p99 %.0f us, errors %d\n",
    summary.requests / (summary.duration / 1e6), latency:percentile(50), latency:percentile(99),
    summary.errors.status + summary.errors.connect + summary.errors.read))
end
