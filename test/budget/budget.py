#!/usr/bin/env python3
"""The memory budget, held to by the system: the real program in a memory cgroup of 1.25x of it.

    test/budget/budget.py AIONBD [--budget-mb 64] [--seconds 10]

Large payloads, wide batches, batches of searches that ask for a thousand hits with payloads, index
builds, SIGKILL and replay, each for a share of the time, eight clients at once. What does not fit
must be refused (429, or 503 while others are served), never end in an OOM kill, and a restart must
fit where the process before fitted (test T22 of the plan).

Needs root and a memory cgroup, version 1 or 2; says so and ends with 0 where there is none.
Standard library only.
"""
import argparse
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

LIMIT_PER_BUDGET = 1.25
CLIENTS = 8
READY_SECONDS = 60
# Refusals that are right when memory or time is short.
REFUSALS = {408, 413, 429, 503}


class Skipped(Exception):
    pass


class MemoryGroup:
    """A cgroup with a memory limit and no swap."""

    def __init__(self, limit):
        self.path = None
        if os.geteuid() != 0:
            raise Skipped("a memory cgroup needs root")
        name = f"aionbd-budget-{os.getpid()}"
        for root, version in (("/sys/fs/cgroup/memory", 1), ("/sys/fs/cgroup", 2)):
            marker = "memory.limit_in_bytes" if version == 1 else "cgroup.controllers"
            if not os.path.exists(os.path.join(root, marker)):
                continue
            try:
                path = os.path.join(root, name)
                if version == 2:
                    with open(os.path.join(root, "cgroup.subtree_control"), "w") as control:
                        control.write("+memory")
                os.mkdir(path)
                self.path, self.version = path, version
                if version == 1:
                    self.write("memory.limit_in_bytes", limit)
                    self.try_write("memory.memsw.limit_in_bytes", limit)
                    self.try_write("memory.swappiness", 0)
                else:
                    self.write("memory.max", limit)
                    self.try_write("memory.swap.max", 0)
                return
            except OSError as error:
                self.remove()
                raise Skipped(f"a memory cgroup cannot be made here: {error}") from error
        raise Skipped("there is no memory cgroup here")

    def write(self, name, value):
        with open(os.path.join(self.path, name), "w") as out:
            out.write(str(value))

    def try_write(self, name, value):
        try:
            self.write(name, value)
        except OSError:
            pass  # a machine without swap has none of these

    def join(self):
        with open(os.path.join(self.path, "cgroup.procs"), "w") as out:
            out.write(str(os.getpid()))

    def oom_kills(self):
        name = "memory.oom_control" if self.version == 1 else "memory.events"
        for line in open(os.path.join(self.path, name)):
            word, _, value = line.partition(" ")
            if word == "oom_kill":
                return int(value)
        return 0

    def peak_mib(self):
        for name in ("memory.max_usage_in_bytes", "memory.peak"):
            path = os.path.join(self.path, name)
            if os.path.exists(path):
                return int(open(path).read()) / (1 << 20)
        return float("nan")

    def remove(self):
        if self.path is None:
            return
        for _ in range(50):
            try:
                os.rmdir(self.path)
                return
            except OSError:
                time.sleep(0.1)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    def __init__(self, program, directory, budget_mb, group):
        self.port = free_port()
        self.log = open(os.path.join(directory, "server.log"), "ab")
        environment = dict(os.environ, AIONBD_MEMORY_BUDGET_MB=str(budget_mb),
                           AIONBD_MAX_DIMENSION="4096", AIONBD_REQUEST_TIMEOUT_MS="20000",
                           AIONBD_L2_INDEX_BUILD_COOLDOWN_MS="100")
        self.process = subprocess.Popen(
            [program, "serve", "--data-dir", os.path.join(directory, "data"),
             "--bind", f"127.0.0.1:{self.port}"],
            stderr=self.log, env=environment, preexec_fn=group.join)
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if self.call(self.connect(), "GET", "/ready")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise RuntimeError(f"not ready: exit code {self.process.poll()}")

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    @staticmethod
    def call(connection, method, path, body=None):
        connection.request(method, path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        self.log.close()


def vector(rng, dimension):
    return "[" + ",".join(f"{rng.random():.6f}" for _ in range(dimension)) + "]"


def upsert_of(rng, points, dimension, payload_bytes):
    rows = []
    for _ in range(points):
        text = "x" * payload_bytes
        rows.append(f'{{"id":{rng.randrange(1000000)},"values":{vector(rng, dimension)},'
                    f'"payload":{{"text":"{text}"}}}}')
    return '{"points":[' + ",".join(rows) + "]}"


class Phase:
    """One kind of request from many clients; counts what is answered."""

    def __init__(self, name, wanted, request):
        self.name, self.wanted, self.request = name, wanted, request
        self.counts = {}
        self.broken = []
        self.lock = threading.Lock()

    def client(self, server, seed, end):
        rng = random.Random(seed)
        connection = server.connect()
        bodies = [self.request(rng) for _ in range(2)]
        while time.monotonic() < end:
            method, path, body = rng.choice(bodies)
            try:
                status, _ = server.call(connection, method, path, body)
            except (OSError, http.client.HTTPException) as error:
                # A refusal before the body was read closes the connection.
                connection.close()
                connection = server.connect()
                status = type(error).__name__
                if server.process.poll() is not None:
                    with self.lock:
                        self.broken.append(f"the server died: {server.process.poll()}")
                    return
            with self.lock:
                self.counts[status] = self.counts.get(status, 0) + 1
                if isinstance(status, int) and status != 200 and status not in REFUSALS:
                    self.broken.append(f"answered {status}")

    def run(self, server, seconds, seed):
        end = time.monotonic() + seconds
        clients = [threading.Thread(target=self.client, args=(server, seed * 100 + i, end))
                   for i in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        for status in self.wanted:
            if status not in self.counts:
                self.broken.append(f"never answered {status}")


def phases():
    return [
        Phase("index builds", {200}, lambda rng: (
            "POST", "/collections/small/points", upsert_of(rng, 256, 32, 20))),
        Phase("large payloads", {200, 429}, lambda rng: (
            "POST", "/collections/large/points", upsert_of(rng, 8, 4, 900000))),
        Phase("wide batches", {200}, lambda rng: (
            "POST", "/collections/wide/points", upsert_of(rng, 256, 1024, 10))),
        Phase("a thousand hits with payloads", {429}, lambda rng: (
            "POST", "/collections/large/search/topk/batch",
            '{"queries":[' + ",".join(vector(rng, 4) for _ in range(256))
            + '],"limit":1000,"include_payload":true}')),
        Phase("searches of the indexed", {200}, lambda rng: (
            "POST", "/collections/small/search/topk",
            f'{{"query":{vector(rng, 32)},"limit":100,"include_payload":true}}')),
    ]


def check_alive(server, group, failures, where):
    if server.process.poll() is not None:
        failures.append(f"{where}: the server ended with {server.process.poll()}")
    if group.oom_kills():
        failures.append(f"{where}: killed for want of memory")


def run(program, budget_mb, seconds, seed):
    limit = int(budget_mb * LIMIT_PER_BUDGET) << 20
    group = MemoryGroup(limit)
    directory = tempfile.mkdtemp(prefix="aionbd-budget-")
    failures, passed, server = [], 0, None
    try:
        server = Server(program, directory, budget_mb, group)
        connection = server.connect()
        for name, dimension in (("small", 32), ("large", 4), ("wide", 1024)):
            status, text = server.call(connection, "POST", "/collections", json.dumps(
                {"name": name, "dimension": dimension}))
            if status not in (200, 201):
                raise RuntimeError(f"cannot create {name}: {status} {text[:200]}")
        for phase in phases():
            phase.run(server, seconds, seed)
            print(f"{phase.name:32} {dict(sorted(phase.counts.items(), key=str))}", flush=True)
            failures += [f"{phase.name}: {what}" for what in sorted(set(phase.broken))]
            check_alive(server, group, failures, phase.name)
            # What was acknowledged must come back within the same limit.
            server.kill()
            server.stop()
            started = time.monotonic()
            server = Server(program, directory, budget_mb, group)
            print(f"{'  killed, ready again after':32} {time.monotonic() - started:.2f} s, "
                  f"at most {group.peak_mib():.0f} of {limit >> 20} MiB", flush=True)
            check_alive(server, group, failures, f"restart after {phase.name}")
            passed += 1
            if failures:
                break
    except RuntimeError as error:
        failures.append(str(error))
        failures.append("oom kills: %d" % group.oom_kills())
    finally:
        if server is not None:
            server.stop()
        group.remove()
        if failures:
            print(f"kept: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    for failure in failures:
        print(f"FAILED {failure}")
    print(f"{passed} passed, {len(failures)} failed")
    return 1 if failures else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("program")
    parser.add_argument("--budget-mb", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10, help="per phase")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    flags = parser.parse_args()
    print(f"seed {flags.seed}")
    try:
        return run(flags.program, flags.budget_mb, flags.seconds, flags.seed)
    except Skipped as why:
        print(f"skipped: {why}")
        return 0


if __name__ == "__main__":
    sys.exit(main())
