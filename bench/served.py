#!/usr/bin/env python3
"""Approximate searches over HTTP against the same searches in process, alternating in one run.

    bench/served.py AIONBD FILE.hdf5 DIRECTORY [rounds = 3] [seconds = 5]

FILE has the layout of ann-benchmarks (`./dev data fashion`). The server has its default settings;
all rows of `train` are imported and optimized, and the queries of `test` are asked in mode auto
with target recall 0.95, 10 hits, without payload. Each round runs `aionbd bench ann` (in process,
one thread), wrk with one connection, and wrk with eight on two threads, on the same cores. The
first two are run again with the cores kept awake, by processes that have them only when nobody else
wants them: what waking a sleeping core costs is the host's, and is in the difference. Prints the
medians of the rounds, and the recall of the answers that came over HTTP.
"""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

import h5py

TARGET = 0.95
HITS = 10
OVERHEAD_US_MAX = 60
QPS_MIN = 8000
HERE = pathlib.Path(__file__).resolve().parent
# As aionbd bench ann counts: rounding may move a distance by this share.
TOLERANCE = 1e-3


def post(url, body):
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_server(program, folder, url):
    # The collection is optimized in one request, which takes as long as building its index.
    server = subprocess.Popen(
        [program, "serve", "--data-dir", str(folder), "--bind", url.removeprefix("http://"),
         "--request-timeout-ms", "600000"], stderr=subprocess.DEVNULL)
    for _ in range(1000):
        done = subprocess.run([program, "healthcheck", "--url", url], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, check=False)
        if done.returncode == 0:
            return server
        time.sleep(0.02)
    server.kill()
    sys.exit("served: the server did not start")


def fill(program, url, file):
    subprocess.run([program, "import", "--url", url, "--collection", "served", "--dataset", "train",
                    "--metric", "l2", "--quiet", str(file)], check=True,
                   stdout=subprocess.DEVNULL)
    post(f"{url}/collections/served/optimize", b"{}")


def write_bodies(file, path):
    with h5py.File(file) as data:
        queries = data["test"][:]
    with open(path, "w", encoding="ascii") as out:
        for query in queries:
            body = {"query": [float(value) for value in query], "limit": HITS, "mode": "auto",
                    "target_recall": TARGET, "include_payload": False}
            out.write(json.dumps(body, separators=(",", ":")) + "\n")


def served_recall(url, bodies, file):
    """Mean recall over all queries by distance, and the modes that ran."""
    with h5py.File(file) as data:
        distances = data["distances"][:, HITS - 1]
    right, modes = 0, set()
    lines = bodies.read_text(encoding="ascii").splitlines()
    for line, last in zip(lines, distances):
        answer = post(f"{url}/collections/served/search/topk", line.encode())
        modes.add(answer["mode"])
        right += sum(hit["value"] <= last * (1 + TOLERANCE) for hit in answer["hits"])
    return right / (HITS * len(lines)), "+".join(sorted(modes))


@contextlib.contextmanager
def cores_awake():
    spin = ("import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])});"
            "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass")
    spinners = [subprocess.Popen([sys.executable, "-c", spin, str(core)])
                for core in os.sched_getaffinity(0)]
    try:
        time.sleep(0.3)
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def in_process(program, file, folder, seconds):
    text = subprocess.run(
        [program, "bench", "ann", "--file", str(file), "--mode", "auto", "--target-recall",
         str(TARGET), "-k", str(HITS), "--batch", "0", "--repeat", "1", "--seconds", str(seconds),
         "--data-dir", str(folder), "--json", "--quiet"],
        check=True, capture_output=True, text=True).stdout
    return json.loads(text.splitlines()[-1])


def wrk(url, bodies, threads, connections, seconds):
    env = {**os.environ, "SERVED_BODIES": str(bodies)}
    text = subprocess.run(
        ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--latency", "-s",
         str(HERE / "served.lua"), url],
        check=True, capture_output=True, text=True, env=env).stdout
    line = next(line for line in text.splitlines() if line.startswith("served "))
    qps, p50, p99, wrong = (float(word) for word in line.split()[1:])
    if wrong:
        sys.exit(f"served: {wrong:.0f} requests failed")
    return {"qps": qps, "p50_us": p50, "p99_us": p99}


def median(runs, key):
    return statistics.median(run[key] for run in runs)


def verdict(good):
    return "met" if good else "MISSED"


def main():
    program, file, folder = (pathlib.Path(argument).resolve() for argument in sys.argv[1:4])
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 3
    seconds = int(sys.argv[5]) if len(sys.argv) > 5 else 5
    data, kept, bodies = folder / "server", folder / "in-process", folder / "bodies.ndjson"
    url = f"http://127.0.0.1:{free_port()}"
    write_bodies(file, bodies)
    server = start_server(program, data, url)
    try:
        fill(program, url, file)
        recall, modes = served_recall(url, bodies, file)
        runs = {"in process": [], "HTTP, 1 connection": [], "HTTP, 8 connections": [],
                "in process, awake": [], "HTTP, 1, awake": []}
        for _ in range(rounds):
            runs["in process"].append(in_process(program, file, kept, seconds))
            runs["HTTP, 1 connection"].append(wrk(url, bodies, 1, 1, seconds))
            runs["HTTP, 8 connections"].append(wrk(url, bodies, 2, 8, seconds))
            with cores_awake():
                runs["in process, awake"].append(in_process(program, file, kept, seconds))
                runs["HTTP, 1, awake"].append(wrk(url, bodies, 1, 1, seconds))
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()
        shutil.rmtree(data, ignore_errors=True)
        shutil.rmtree(kept, ignore_errors=True)
    print(f"{'':22}{'QPS':>10}{'p50 us':>10}{'p99 us':>10}")
    for name, results in runs.items():
        print(f"{name:22}{median(results, 'qps'):>10.0f}{median(results, 'p50_us'):>10.1f}"
              f"{median(results, 'p99_us'):>10.1f}")
    def overhead(served, inside):
        return median(runs[served], "p50_us") - median(runs[inside], "p50_us")

    plain = overhead("HTTP, 1 connection", "in process")
    awake = overhead("HTTP, 1, awake", "in process, awake")
    qps = median(runs["HTTP, 8 connections"], "qps")
    print(f"\nrecall over HTTP ({modes})   {recall:.4f}   target {TARGET}, at least "
          f"{TARGET - 0.01:.2f}: {verdict(recall >= TARGET - 0.01)}")
    print(f"p50 over HTTP - in process   {plain:.1f} us   at most {OVERHEAD_US_MAX}: "
          f"{verdict(plain <= OVERHEAD_US_MAX)}   with the cores kept awake {awake:.1f} us")
    print(f"QPS of 8 connections         {qps:.0f}   at least {QPS_MIN}: {verdict(qps >= QPS_MIN)}")


if __name__ == "__main__":
    main()
