"""The server as a process, and writers that know exactly what it promised them.

Each writer owns a range of ids and has one request under way at a time; so for each id it knows
what the server acknowledged last, and which one batch, if any, was cut off. After a restart every
id must hold what was acknowledged, or that batch is there as a whole.
"""
import http.client
import json
import random
import socket
import subprocess
import threading
import time

COLLECTION = "oracle"
IDS_EACH = 40
BATCH_MAX = 8
READY_SECONDS_MAX = 10
REQUEST_SECONDS_MAX = 20


class Violation(Exception):
    """A promise was broken."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def request(port, method, path, body=None):
    """(status, parsed body) of one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_SECONDS_MAX)
    try:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")
    finally:
        connection.close()


class Server:
    """`aionbd serve` with thresholds so small that checkpoints and merges run all the time."""

    def __init__(self, program, data_dir, log_path):
        self.program, self.data_dir, self.log_path = program, data_dir, log_path
        self.port = free_port()
        self.process = None

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [self.program, "serve", "--bind", f"127.0.0.1:{self.port}", "--data-dir",
                 self.data_dir, "--checkpoint-interval", "4", "--checkpoint-compact-after", "3"],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        begin = time.monotonic()
        while True:
            try:
                if request(self.port, "GET", "/ready")[0] == 200:
                    return time.monotonic() - begin
            except OSError:
                pass
            if self.process.poll() is not None:
                raise Violation(f"the server does not start: exit {self.process.returncode}")
            if time.monotonic() - begin > READY_SECONDS_MAX:
                raise Violation(f"not ready after {READY_SECONDS_MAX} s")
            time.sleep(0.005)

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        if self.process is not None:
            self.process.wait()


class Writer:
    """One client and what it was promised."""

    def __init__(self, port, number, seed):
        self.port, self.first = port, number * IDS_EACH
        self.random = random.Random(seed)
        self.known = {}  # id -> value, of what is there
        self.doubt = None  # id -> value or None (deleted), of the batch that was cut off
        self.sequence = 0
        self.acknowledged = 0

    def batch(self):
        """A batch of writes, or one delete."""
        self.sequence += 1
        ids = [self.first + self.random.randrange(IDS_EACH)
               for _ in range(self.random.randint(1, BATCH_MAX))]
        if self.random.random() < 0.2:
            return "points/delete", {"points": sorted(set(ids))}, dict.fromkeys(ids)
        points = [{"id": i, "values": [i, self.sequence]} for i in sorted(set(ids))]
        return "points", {"points": points}, dict.fromkeys(ids, self.sequence)

    def run(self, stop):
        """Writes until told to stop, or until a batch is cut off or refused."""
        while not stop.is_set():
            path, body, change = self.batch()
            try:
                status, _ = request(self.port, "POST", f"/collections/{COLLECTION}/{path}", body)
            except (OSError, http.client.HTTPException, ValueError):
                status = 0
            if status != 200:
                # A 4xx or 507 changed nothing; anything else may have.
                if not 400 <= status < 500 and status != 507:
                    self.doubt = change
                return
            self.apply(change)
            self.acknowledged += 1

    def apply(self, change):
        for number, value in change.items():
            if value is None:
                self.known.pop(number, None)
            else:
                self.known[number] = value

    def verify(self, stored):
        own = {i: v for i, v in stored.items() if self.first <= i < self.first + IDS_EACH}
        if own != self.known:
            if self.doubt is None:
                raise Violation(f"ids from {self.first}: want {self.known}, found {own}")
            before = dict(self.known)
            self.apply(self.doubt)
            if own != self.known:
                raise Violation(f"ids from {self.first}: neither {before} nor that with "
                                f"{self.doubt}, but {own}")
        self.doubt = None


class Writers:
    """Several writers at once, on one server."""

    def __init__(self, port, count, seed):
        self.port = port
        self.writers = [Writer(port, number, seed * 1000 + number) for number in range(count)]
        self.stop = threading.Event()
        self.threads = []

    def create_collection(self):
        status, body = request(self.port, "POST", "/collections",
                               {"name": COLLECTION, "dimension": 2})
        if status != 200:
            raise Violation(f"create: {status} {body}")

    def begin(self):
        self.stop.clear()
        self.threads = [threading.Thread(target=writer.run, args=(self.stop,))
                        for writer in self.writers]
        for thread in self.threads:
            thread.start()

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def verify(self):
        status, page = request(self.port, "GET",
                               f"/collections/{COLLECTION}/points?limit=1000&include_values=true")
        if status != 200:
            raise Violation(f"list: {status} {page}")
        stored = {}
        for point in page["points"]:
            if point["values"][0] != point["id"]:
                raise Violation(f"a point holds another's values: {point}")
            stored[point["id"]] = int(point["values"][1])
        if any(number >= len(self.writers) * IDS_EACH for number in stored):
            raise Violation("a phantom: an id that is nobody's")
        for writer in self.writers:
            writer.verify(stored)

    @property
    def acknowledged(self):
        return sum(writer.acknowledged for writer in self.writers)
