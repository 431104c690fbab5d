#!/usr/bin/env python3
"""Queries that are unlike the rows: what they find, what their answers say, and how soon it is so.

    bench/drift.py AIONBD FILE.hdf5 DIRECTORY [rounds = 8]

FILE has the layout of ann-benchmarks, euclidean (`./dev data shifted`). Its rows are imported into
a fresh server and optimized, so that indexes promise what held-out rows found. Then rounds of 200
queries of `test` for each of three target recalls, with pauses between them, in which the server
audits and measures its curves anew. Prints for each round and target the recall at 10 that was
found, the mean `recall_at_k` that the answers stated, and the mean time of a request.
"""
import http.client
import json
import pathlib
import socket
import subprocess
import sys
import time

import h5py

TARGETS = (0.90, 0.95, 0.99)
HITS = 10
QUERIES = 200
PAUSE_SECONDS = 10
COLLECTION = "/collections/drift"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    def __init__(self, program, folder):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        # The collection is optimized in one request, which takes as long as building its index.
        self.process = subprocess.Popen(
            [program, "serve", "--data-dir", str(folder), "--bind", f"127.0.0.1:{port}",
             "--request-timeout-ms", "600000"], stderr=subprocess.DEVNULL)
        while subprocess.run([program, "healthcheck", "--url", self.url],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             check=False).returncode:
            if self.process.poll() is not None:
                sys.exit(f"the server ended: {self.process.returncode}")
            time.sleep(0.05)
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)

    def post(self, path, body):
        self.connection.request("POST", COLLECTION + path, json.dumps(body),
                                {"content-type": "application/json"})
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            sys.exit(f"POST {path}: {answer.status} {content[:300]}")
        return json.loads(content)

    def search(self, query, **more):
        return self.post("/search/topk", {"query": query, "metric": "l2", "limit": HITS,
                                          "include_payload": False, **more})

    def stop(self):
        self.process.terminate()
        self.process.wait()


def ask(server, queries, truth, target):
    found = stated = 0
    started = time.monotonic()
    for query, nearest in zip(queries, truth):
        answer = server.search(query, target_recall=target)
        found += len({hit["id"] for hit in answer["hits"]} & nearest)
        stated += answer["recall_at_k"]
    microseconds = (time.monotonic() - started) / len(queries) * 1e6
    return found / (HITS * len(queries)), stated / len(queries), microseconds


def main(program, path, directory, rounds=8):
    with h5py.File(path, "r") as file:
        queries = file["test"][:].astype(float).tolist()
        truth = [set(row[:HITS].tolist()) for row in file["neighbors"][:]]
    server = Server(program, pathlib.Path(directory, "data"))
    try:
        subprocess.run([program, "import", "--url", server.url, "--collection", "drift",
                        "--metric", "l2", "--quiet", path], check=True, stdout=subprocess.DEVNULL)
        server.search(queries[0])  # indexes are built for metrics that are asked for
        server.post("/optimize", {})
        print("| After | " + " | ".join(f"target {target:.2f}: found (stated), time"
                                        for target in TARGETS) + " |")
        print("|---|" + "---|" * len(TARGETS))
        begin = time.monotonic()
        for number in range(int(rounds)):
            cells = [f"{time.monotonic() - begin:.0f} s"]
            first = number * QUERIES % len(queries)
            some = slice(first, first + QUERIES)
            for target in TARGETS:
                found, stated, microseconds = ask(server, queries[some], truth[some], target)
                cells.append(f"{found:.3f} ({stated:.3f}), {microseconds:.0f} us")
            print("| " + " | ".join(cells) + " |", flush=True)
            time.sleep(PAUSE_SECONDS)
    finally:
        server.stop()


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(*sys.argv[1:])
