-- wrk script: searches whose bodies are the lines of the file that SERVED_BODIES names, in turn,
-- each thread starting at a line of its own. Requests are made before the clock starts.
local requests, at, threads = {}, 0, 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init()
  local headers = {["content-type"] = "application/json"}
  for body in io.lines(os.getenv("SERVED_BODIES")) do
    requests[#requests + 1] =
      wrk.format("POST", "/collections/served/search/topk", headers, body)
  end
  at = number * 377
end

function request()
  at = at + 1
  return requests[at % #requests + 1]
end

function done(summary, latency)
  local wrong = summary.errors.status + summary.errors.connect + summary.errors.read
    + summary.errors.timeout
  io.write(string.format("served %.1f %.1f %.1f %d\n", summary.requests / (summary.duration / 1e6),
    latency:percentile(50), latency:percentile(99), wrong))
end
