#!/usr/bin/env python3
"""A data set four times larger than the memory budget, served end to end.

    bench/budget.py AIONBD DIRECTORY [rows = 1000000] [budget in MiB = 128]

Makes rows of 128 dimensions from Gaussian balls (those of tools/bench_data.py "clusters"), imports
them into a fresh server with that AIONBD_MEMORY_BUDGET_MB, waits until all are indexed, restarts
the server, warms up, and asks 1,000 queries of the same kind one at a time, mode auto, target 0.95.
Prints a table: recall at 10 against brute force, times as the client sees them, resident memory
from /proc while importing, indexing and searching.
"""
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time

import numpy

DIMENSION = 128
QUERIES = 1000
HITS = 10
PORT = 18432
SEED = 20261122
# A right answer is as near as the tenth, within rounding (as in ann-benchmarks).
TOLERANCE = 1.001
WARM_UP = 300


def blocks(rows):
    """The rows in blocks, then the queries; the same numbers in every version of numpy."""
    random = numpy.random.RandomState(SEED + 1)
    centres = 400
    share = 1.0 / numpy.arange(1, centres + 1) ** 0.7
    share /= share.sum()
    middle = random.standard_normal((centres, DIMENSION)) * 2
    width = random.uniform(0.5, 1.5, centres)
    for first in range(0, rows + QUERIES, 50000):
        count = min(50000, rows + QUERIES - first)
        owner = random.choice(centres, count, p=share)
        noise = random.standard_normal((count, DIMENSION)) * width[owner, None]
        yield (middle[owner] + noise).astype(numpy.float32)


def make_rows(path, rows):
    data = numpy.lib.format.open_memmap(path, "w+", numpy.float32, (rows, DIMENSION))
    queries = []
    done = 0
    for block in blocks(rows):
        kept = min(len(block), rows - done)
        data[done:done + kept] = block[:kept]
        queries.append(block[kept:])
        done += kept
    data.flush()
    return numpy.concatenate(queries)


def tenth_distances(path, queries):
    """The squared distance of the tenth nearest row of each query, by brute force."""
    data = numpy.load(path, mmap_mode="r")
    best = numpy.full((len(queries), HITS), numpy.inf)
    lengths = (queries.astype(numpy.float64) ** 2).sum(1)[:, None]
    for first in range(0, len(data), 50000):
        block = numpy.array(data[first:first + 50000])
        near = lengths + (block.astype(numpy.float64) ** 2).sum(1) - 2.0 * (queries @ block.T)
        near = numpy.partition(near, HITS - 1, axis=1)[:, :HITS]
        best = numpy.sort(numpy.concatenate([best, near], axis=1), axis=1)[:, :HITS]
    return best[:, -1]


class Server:
    def __init__(self, program, directory, budget):
        self.url = f"http://127.0.0.1:{PORT}"
        self.peak = 0
        environment = dict(os.environ, AIONBD_MEMORY_BUDGET_MB=str(budget))
        self.process = subprocess.Popen(
            [program, "serve", "--data-dir", directory, "--bind", f"127.0.0.1:{PORT}"],
            stderr=subprocess.DEVNULL, env=environment)
        while subprocess.run([program, "healthcheck", "--url", self.url],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
            time.sleep(0.05)
        self.connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=600)
        self.watching = threading.Thread(target=self.watch, daemon=True)
        self.watching.start()

    def watch(self):
        while self.process.poll() is None:
            try:
                self.peak = max(self.peak, self.resident())
            except (OSError, AttributeError):
                return
            time.sleep(0.02)

    def resident(self, name="VmRSS"):
        text = open(f"/proc/{self.process.pid}/status").read()
        return int(re.search(rf"^{name}:\s+(\d+) kB", text, re.M).group(1)) / 1024

    def peak_since(self):
        peak, self.peak = self.peak, 0
        return peak

    def call(self, method, path, body=None):
        self.connection.request(method, path, None if body is None else json.dumps(body),
                                {"content-type": "application/json"})
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:300]}")
        return json.loads(content)

    def stop(self):
        self.process.terminate()
        self.process.wait()


def bare_rows(server):
    segments = server.call("GET", "/collections/rows/stats")["segments"]
    return sum(segment["rows"] for segment in segments if not segment["indexes"]), segments


def wait_for_indexes(server):
    """Until no more is built: under a budget a remainder may wait for more rows."""
    last, since = None, time.monotonic()
    while True:
        bare, segments = bare_rows(server)
        state = (bare, len(segments))
        if state != last:
            last, since = state, time.monotonic()
        if bare == 0 or time.monotonic() - since > 60:
            return
        time.sleep(1)


def search(server, query, mode="auto"):
    body = {"query": [float(value) for value in query], "limit": HITS, "mode": mode}
    if mode == "auto":
        body["target_recall"] = 0.95
    return server.call("POST", "/collections/rows/search/topk", body)


def main(program, directory, rows=1000000, budget=128):
    rows, budget = int(rows), int(budget)
    work = os.path.join(directory, "budget-bench")
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    table = []
    path = os.path.join(work, "rows.npy")
    queries = make_rows(path, rows)
    truth = tenth_distances(path, queries)
    server = Server(program, os.path.join(work, "data"), budget)
    try:
        table.append(("started", f"{server.resident():.0f} MiB resident"))
        started = time.monotonic()
        subprocess.run([program, "import", "--url", server.url, "--collection", "rows", "--metric",
                        "l2", "--quiet", "--state", os.path.join(work, "state"), path], check=True,
                       stdout=subprocess.DEVNULL)
        table.append(("import", f"{time.monotonic() - started:.0f} s, at most "
                                f"{server.peak_since():.0f} MiB resident"))
        wait_for_indexes(server)
        bare, segments = bare_rows(server)
        table.append(("indexing", f"{time.monotonic() - started:.0f} s since the start, at most "
                                  f"{server.peak_since():.0f} MiB resident"))
        table.append(("segments", f"{len(segments)}, {bare} rows without an index; in place: "
                      + ", ".join(f"{what} {sum(s['in_place'] == what for s in segments)}"
                                  for what in ("all", "codes", "nothing"))))
        server.stop()
        started = time.monotonic()
        server = Server(program, os.path.join(work, "data"), budget)
        last = queries[-WARM_UP:]
        for query in last:
            search(server, query)
        table.append(("restart and warm-up", f"{time.monotonic() - started:.1f} s, at most "
                                             f"{server.peak_since():.0f} MiB resident"))
        right = 0
        times = []
        for query, tenth in zip(queries, truth):
            before = time.monotonic()
            answer = search(server, query)
            times.append(time.monotonic() - before)
            ids = [hit["id"] for hit in answer["hits"]]
            data = numpy.load(path, mmap_mode="r")
            found = ((data[ids].astype(numpy.float64) - query) ** 2).sum(1)
            right += int((found <= tenth * TOLERANCE).sum())
        times = numpy.sort(times) * 1e3
        table.append(("recall at 10", f"{right / (HITS * len(queries)):.4f} (target 0.95)"))
        table.append(("search p50, p99", f"{times[len(times) // 2]:.2f} ms, "
                                         f"{times[len(times) * 99 // 100]:.2f} ms"))
        table.append(("resident while searching",
                      f"at most {server.peak_since():.0f} MiB, now {server.resident():.0f} MiB "
                      f"(anonymous {server.resident('RssAnon'):.0f}, files "
                      f"{server.resident('RssFile'):.0f}); limit {budget * 1.25:.0f} MiB"))
        before = time.monotonic()
        for query in queries[:5]:
            search(server, query, "exact")
        table.append(("exact search", f"{(time.monotonic() - before) / 5 * 1e3:.0f} ms, at most "
                                      f"{server.peak_since():.0f} MiB resident"))
    finally:
        server.stop()
        for what, figure in table:
            print(f"| {what} | {figure} |", flush=True)
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
