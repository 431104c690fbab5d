#!/usr/bin/env python3
"""Clients that leave at any byte: F20 of docs/durability.md, T24 and O6 of the plan.

usage: disconnects.py --program PATH [--rounds N] [--seed S]

A write is sent up to some byte, or wholly, or until part of the answer came; then the connection is
cut, abruptly every other time. The write must have happened as a whole or not at all, not at all if
its last byte was never sent, and the next write on another connection must be answered within 1 s.
At the end the counters equal a recount, and no work is left in flight.
"""
import argparse
import json
import random
import socket
import struct
import sys
import tempfile
import time

from oracle import COLLECTION, Server, Violation, request

NEXT_SECONDS_MAX = 1.0
BATCH = 5
PATH = f"/collections/{COLLECTION}/points"


def batch(value):
    return {"points": [{"id": i, "values": [i, value]} for i in range(BATCH)]}


def stored(port):
    """The values that the batch's points hold."""
    status, page = request(port, "GET", PATH + "?limit=100&include_values=true")
    if status != 200:
        raise Violation(f"list: {status}")
    return [int(point["values"][1]) for point in page["points"] if point["id"] < BATCH]


def send_and_leave(port, value, chance):
    """Sends some of a write, leaves; returns whether its last byte was sent."""
    body = json.dumps(batch(value)).encode()
    head = (f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n").encode()
    whole = head + body
    size = chance.choice([chance.randrange(len(whole)), len(whole) - 1, len(whole), len(whole)])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(whole[:size])
        if size == len(whole) and chance.random() < 0.5:
            client.recv(chance.randint(1, 40))
        if chance.random() < 0.5:  # a reset instead of an orderly end
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return size == len(whole)


def run(arguments, folder):
    chance = random.Random(arguments.seed)
    server = Server(arguments.program, f"{folder}/data", f"{folder}/server.log")
    server.start()
    try:
        request(server.port, "POST", "/collections", {"name": COLLECTION, "dimension": 2})
        before = []
        slowest = 0.0
        for value in range(1, arguments.rounds + 1):
            sent = send_and_leave(server.port, value, chance)
            begin = time.monotonic()
            status, _ = request(server.port, "POST", PATH,
                                {"points": [{"id": 1000, "values": [1000, value]}]})
            took = time.monotonic() - begin
            slowest = max(slowest, took)
            if status != 200 or took > NEXT_SECONDS_MAX:
                raise Violation(f"the next write: {status} after {took:.2f} s")
            now = stored(server.port)
            # A write that was wholly sent may still be under way.
            while sent and now == before and time.monotonic() - begin < NEXT_SECONDS_MAX:
                time.sleep(0.01)
                now = stored(server.port)
            if now not in (before, [value] * BATCH):
                raise Violation(f"half a batch: {now}")
            if not sent and now != before:
                raise Violation("a write happened that was never wholly sent")
            before = now
        count = request(server.port, "GET", f"/collections/{COLLECTION}")[1]["point_count"]
        if count != len(before) + 1:
            raise Violation(f"{count} points are counted, there are {len(before) + 1}")
    finally:
        server.kill()
    print(f"slowest next write {slowest:.3f} s")
    print(f"counted: {arguments.rounds} connections cut")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--program", required=True)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="aionbd_disconnects_") as folder:
        try:
            run(arguments, folder)
        except Violation as violation:
            print(f"VIOLATION: {violation}; repeat with --seed {arguments.seed}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
