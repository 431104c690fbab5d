#!/usr/bin/env python3
"""The main job, end to end: `./dev demo`.

Starts `aionbd serve` on a temporary data directory, imports the 60,000 Fashion-MNIST images
(784 dimensions, the label as payload) with `aionbd import`, asks 1,000 test images as queries
(single, in batches, filtered by label), checks every answer against a brute force of its own
(numpy, double precision), kills the server with SIGKILL, starts it again, and checks that
everything is there. Exit code 0 only if all of it held. Cleans up after itself, also on Ctrl-C.

usage: demo.py --program PATH [--keep]
"""
import argparse
import gzip
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import numpy

DATA = pathlib.Path("/usr/share/datasets/fashion-mnist")
LABELS = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
          "ankle boot"]
COLLECTION = "fashion"
QUERIES = 1000
FILTERED_QUERIES = 200
K = 10
BATCH = 100
SAMPLES = 200
START_SECONDS_MAX = 60
# l2 distances are compared with a double-precision reference: f32 accumulation over 784 products.
RELATIVE_ERROR_MAX = 1e-5


class Broken(Exception):
    """A promise that did not hold."""


def require(holds, message):
    if not holds:
        raise Broken(message)


# ---- Talking -------------------------------------------------------------------------------------

COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ


def painted(text, code):
    return f"\x1b[{code}m{text}\x1b[0m" if COLOUR else text


def headline(text):
    print(f"\n{painted(text, '1')}", flush=True)


def held(text):
    print(f"  {painted('ok', '32')}  {text}", flush=True)


def percentiles_ms(seconds):
    return [f"{value * 1000:.2f}" for value in numpy.percentile(seconds, [50, 95, 99])]


# ---- Data ----------------------------------------------------------------------------------------

def read_idx(name):
    with gzip.open(DATA / name) as file:
        content = file.read()
    axes = content[3]
    shape = [int.from_bytes(content[4 + 4 * i:8 + 4 * i], "big") for i in range(axes)]
    return numpy.frombuffer(content, numpy.uint8, offset=4 + 4 * axes).reshape(shape[0], -1)


def squared_distances(rows, queries):
    """Exact: pixels are integers, and every sum stays below 2^53."""
    rows, queries = rows.astype(numpy.float64), queries.astype(numpy.float64)
    return (queries ** 2).sum(1)[:, None] - 2 * queries @ rows.T + (rows ** 2).sum(1)[None, :]


def nearest(distances, allowed=None):
    """Per query the ids of the K nearest rows; equal distances by ascending id, as we promise."""
    if allowed is not None:
        distances = numpy.where(allowed, distances, numpy.inf)
    # The K-th smallest bounds the candidates, ties included; sort those alone.
    answers = []
    for row in distances:
        bound = numpy.partition(row, K - 1)[K - 1]
        candidates = numpy.flatnonzero(row <= bound)
        answers.append(candidates[numpy.lexsort((candidates, row[candidates]))][:K])
    return numpy.array(answers)


# ---- The server ----------------------------------------------------------------------------------

class Server:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.process = self.connection = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        """Seconds from the start of the process to its first `ready`."""
        env = {**os.environ, "AIONBD_BIND": f"127.0.0.1:{self.port}",
               "AIONBD_DATA_DIR": str(self.folder / "data"), "AIONBD_CHECKPOINT_INTERVAL": "64",
               "AIONBD_REQUEST_TIMEOUT_MS": "30000"}
        begin = time.perf_counter()
        with open(self.folder / "server.log", "ab") as log:
            # Its own process group: Ctrl-C reaches this script, which stops the server itself.
            self.process = subprocess.Popen([self.program, "serve"], env=env, stdout=log,
                                            stderr=log, stdin=subprocess.DEVNULL,
                                            start_new_session=True)
        while time.perf_counter() - begin < START_SECONDS_MAX:
            require(self.process.poll() is None, f"the server ended at once\n{self.log_tail()}")
            try:
                self.connect()
                if self.ask("GET", "/ready")[0] == 200:
                    return time.perf_counter() - begin
            except OSError:
                pass
            time.sleep(0.005)
        raise Broken(f"not ready after {START_SECONDS_MAX} s\n{self.log_tail()}")

    def connect(self):
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        self.connection.connect()
        # Request head and body leave in two writes; do not hold the second one back.
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, method, path, body=None):
        text = None if body is None else json.dumps(body)
        headers = {} if body is None else {"content-type": "application/json"}
        self.connection.request(method, path, text, headers)
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def get(self, method, path, body=None):
        status, content = self.ask(method, path, body)
        require(status == 200, f"{method} {path} answered {status}: {content[:300]!r}")
        return json.loads(content)

    def memory_mib(self, field):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith(field + ":"))
        return int(line.split()[1]) / 1024

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def close(self):
        if self.process and self.process.poll() is None:
            self.kill()

    def log_tail(self):
        text = (self.folder / "server.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join("  | " + line for line in text.splitlines()[-10:])


# ---- The steps -----------------------------------------------------------------------------------

def search_body(query, **more):
    return {"query": query, "metric": "l2", "limit": K, "mode": "exact", **more}


def import_images(server):
    begin = time.perf_counter()
    done = subprocess.run(
        [server.program, "import", "--url", server.url,
         "--collection", COLLECTION, "--metric", "l2",
         "--state", str(server.folder / "import-state"),
         "--refused", str(server.folder / "refused.ndjson"),
         str(DATA / "train-images-idx3-ubyte.gz"),
         "--labels", str(DATA / "train-labels-idx1-ubyte.gz")], check=False)
    require(done.returncode == 0, f"aionbd import ended with exit code {done.returncode}")
    return time.perf_counter() - begin


def check_hits(answers, truth, distances, what):
    """Recall against the truth, having checked that ids and distances belong together."""
    found = 0
    for index, hits in enumerate(answers):
        ids = [hit["id"] for hit in hits]
        require(len(set(ids)) == K, f"{what}, query {index}: {len(set(ids))} different hits")
        exact = numpy.sqrt(distances[index, ids])
        got = numpy.array([hit["value"] for hit in hits])
        error = numpy.max(numpy.abs(got - exact) / numpy.maximum(exact, 1))
        require(error <= RELATIVE_ERROR_MAX, f"{what}, query {index}: distance {error:.1e} off")
        require(list(got) == sorted(got), f"{what}, query {index}: not in order of distance")
        found += len(set(ids) & set(truth[index].tolist()))
    return found / (len(answers) * K)


def ask_singles(server, queries, labels=None):
    """(answers, bodies, seconds of each request), one after the other on one connection."""
    answers, bodies, seconds = [], [], []
    for index, query in enumerate(queries):
        more = {}
        if labels is not None:
            more["filter"] = {"must": [{"field": "label", "value": int(labels[index])}]}
        begin = time.perf_counter()
        status, content = server.ask("POST", f"/collections/{COLLECTION}/search/topk",
                                     search_body(query, **more))
        seconds.append(time.perf_counter() - begin)
        require(status == 200, f"search answered {status}: {content[:300]!r}")
        bodies.append(content)
        answers.append(json.loads(content)["hits"])
    return answers, bodies, seconds


def ask_batches(server, queries):
    answers, seconds = [], []
    for first in range(0, len(queries), BATCH):
        body = search_body(None)
        del body["query"]
        body["queries"] = queries[first:first + BATCH]
        begin = time.perf_counter()
        answer = server.get("POST", f"/collections/{COLLECTION}/search/topk/batch", body)
        seconds.append(time.perf_counter() - begin)
        answers += [result["hits"] for result in answer["results"]]
    return answers, seconds


def check_contents(server, images, labels, chosen):
    count = server.get("GET", f"/collections/{COLLECTION}")["point_count"]
    require(count == len(images), f"{count} points instead of {len(images)}")
    for index in map(int, chosen):
        point = server.get("GET", f"/collections/{COLLECTION}/points/{index}")
        same = numpy.array_equal(numpy.array(point["values"], numpy.float32).view(numpy.uint32),
                                 images[index].astype(numpy.float32).view(numpy.uint32))
        require(point["id"] == index and same, f"point {index} differs from image {index}")
        require(point["payload"] == {"label": int(labels[index])}, f"payload of {index} differs")
    return count


def run(server):
    headline("Reading Fashion-MNIST")
    images, labels = read_idx("train-images-idx3-ubyte.gz"), read_idx("train-labels-idx1-ubyte.gz")
    tests = read_idx("t10k-images-idx3-ubyte.gz")[:QUERIES]
    test_labels = read_idx("t10k-labels-idx1-ubyte.gz")[:QUERIES]
    labels, test_labels = labels.ravel(), test_labels.ravel()
    held(f"{len(images):,} images of {images.shape[1]} pixels, {QUERIES:,} of the test images as "
         "queries")

    headline("Brute force (numpy), the independent truth")
    distances = squared_distances(images, tests)
    truth = nearest(distances)
    few = distances[:FILTERED_QUERIES]
    same_label = labels[None, :] == test_labels[:FILTERED_QUERIES, None]
    filtered_truth = nearest(few, same_label)
    held(f"{distances.size / 1e6:.0f} million distances in double precision")

    table = []
    headline("Import over HTTP")
    first_start = server.start()
    held(f"server ready on {server.url} in {first_start * 1000:.0f} ms")
    seconds = import_images(server)
    count = check_contents(server, images, labels, [])
    held(f"{count:,} points are there")
    table.append(("ingest", f"{count / seconds:,.0f} points/s", f"{seconds:.1f} s, every batch "
                  "durable before it is acknowledged"))

    headline(f"Search, exact, k = {K}, over HTTP")
    queries = tests.astype(int).tolist()
    ask_singles(server, queries[:20])  # touches the mapped files once, so that none is read cold
    answers, bodies, seconds = ask_singles(server, queries)
    recall = check_hits(answers, truth, distances, "single")
    require(recall >= 0.9999, f"exact search found {recall:.4f} of the true neighbours")
    held(f"{QUERIES:,} single queries, recall@{K} {recall:.4f}")
    table.append(("single", f"{QUERIES / sum(seconds):,.0f} queries/s",
                  "p50 {} / p95 {} / p99 {} ms".format(*percentiles_ms(seconds))))

    batched, seconds = ask_batches(server, queries)
    require(batched == answers, "a batch answers differently from single queries")
    held(f"the same queries in batches of {BATCH}: the same hits")
    table.append(("batch", f"{QUERIES / sum(seconds):,.0f} queries/s",
                  f"batches of {BATCH}, " +
                  "p50 {} / p95 {} / p99 {} ms each".format(*percentiles_ms(seconds))))

    filtered, _, seconds = ask_singles(server, queries[:FILTERED_QUERIES], test_labels)
    filtered_recall = check_hits(filtered, filtered_truth, few, "filtered")
    require(filtered_recall >= 0.9999, f"filtered search found {filtered_recall:.4f}")
    for index, hits in enumerate(filtered):
        require(all(hit["payload"]["label"] == test_labels[index] for hit in hits),
                f"filtered query {index} has a hit of another label")
    held(f"{FILTERED_QUERIES} queries filtered by label, recall@{K} {filtered_recall:.4f}")
    table.append(("filtered", f"{FILTERED_QUERIES / sum(seconds):,.0f} queries/s",
                  "p50 {} / p95 {} / p99 {} ms".format(*percentiles_ms(seconds))))
    table.append((f"recall@{K}", f"{recall:.4f}",
                  f"filtered {filtered_recall:.4f}; against numpy in double precision"))
    votes = numpy.array([numpy.bincount([hit["payload"]["label"] for hit in hits],
                                        minlength=len(LABELS)).argmax() for hits in answers])
    nearest_label = LABELS[answers[0][0]["payload"]["label"]]
    print(f"      the {K} neighbours name what the test image shows in "
          f"{(votes == test_labels).mean():.1%} of cases; the first is "
          f"an {LABELS[test_labels[0]]}, its nearest neighbour an {nearest_label}")
    memory = server.memory_mib("VmRSS")
    own = server.memory_mib("RssAnon")

    headline("SIGKILL, then start again")
    server.kill()
    held("killed")
    restart = server.start()
    held(f"ready again in {restart * 1000:.0f} ms")
    chosen = numpy.random.default_rng(1).choice(len(images), SAMPLES, replace=False)
    check_contents(server, images, labels, chosen)
    held(f"{count:,} points; {SAMPLES} of them compared with the images bit for bit")
    again = ask_singles(server, queries)[1]
    different = sum(before != after for before, after in zip(bodies, again))
    require(different == 0, f"{different} answers differ from those before the kill")
    held(f"{QUERIES:,} answers, byte for byte those from before the kill")
    require(server.terminate() == 0, "SIGTERM did not end the server with exit code 0")
    held("stopped by SIGTERM with exit code 0")

    stored = sum(path.stat().st_size for path in (server.folder / "data").rglob("*"))
    table.append(("restart", f"{restart * 1000:,.0f} ms", "from exec to ready, after SIGKILL"))
    table.append(("memory", f"{memory:,.0f} MiB resident",
                  f"{own:,.0f} MiB its own, the rest is the page cache of mapped files"))
    table.append(("disk", f"{stored / 2**20:,.0f} MiB",
                  f"the vectors alone are {images.size * 4 / 2**20:,.0f} MiB"))
    return table


def print_table(table):
    widths = [max(len(row[column]) for row in table) for column in range(2)]
    print()
    for name, figure, detail in table:
        print(f"  {name:<{widths[0]}}   {painted(f'{figure:>{widths[1]}}', '1')}   {detail}")
    print()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--keep", action="store_true", help="leave the data directory behind")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = pathlib.Path(tempfile.mkdtemp(prefix="aionbd-demo-"))
    server = Server(os.path.abspath(options.program), folder)
    try:
        table = run(server)
        print_table(table)
        print(painted("Everything held.", "1;32"))
        return 0
    except Broken as broken:
        print(f"\n{painted('DID NOT HOLD:', '1;31')} {broken}", file=sys.stderr)
        return 1
    except (OSError, http.client.HTTPException) as error:
        print(f"\n{painted('DID NOT HOLD:', '1;31')} the server broke off: {error!r}\n"
              f"{server.log_tail()}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped")
        return 130
    finally:
        server.close()
        if options.keep:
            print(f"data left in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
