#!/usr/bin/env python3
"""Signals to a server under load, at any moment: F13 of docs/durability.md, T26 of the plan.

usage: signals.py --program PATH [--rounds N] [--seed S]

SIGTERM, SIGINT and SIGHUP end it with exit code 0 within 8 s, whatever it is doing: writing,
sealing, merging, starting. A second signal ends it at once. SIGPIPE does not hurt it. After each
end, whatever was acknowledged must be there.
"""
import argparse
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from oracle import Server, Violation, Writers

END_SECONDS_MAX = 8


def end_cleanly(server, number):
    server.process.send_signal(number)
    try:
        code = server.process.wait(END_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        raise Violation(f"still running {END_SECONDS_MAX} s after signal {number}") from None
    if code != 0:
        raise Violation(f"exit code {code} after signal {number}")


def end_twice(server, number):
    """The second signal may find it gone, ending, or end it at once."""
    server.process.send_signal(number)
    time.sleep(0.001)
    server.process.send_signal(number)
    begin = time.monotonic()
    code = server.process.wait(END_SECONDS_MAX)
    if code not in (0, 128 + number) or time.monotonic() - begin > END_SECONDS_MAX / 2:
        raise Violation(f"exit code {code} after a second signal, not at once")


def interrupt_start(server, chance):
    """A signal while the server starts; then it must start again."""
    with open(server.log_path, "ab") as log:
        server.process = subprocess.Popen(
            [server.program, "serve", "--bind", f"127.0.0.1:{server.port}", "--data-dir",
             server.data_dir], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    time.sleep(chance.uniform(0, 0.05))
    server.process.send_signal(signal.SIGTERM)
    code = server.process.wait(END_SECONDS_MAX)
    # Before its handlers are installed the signal itself ends it.
    if code not in (0, -signal.SIGTERM):
        raise Violation(f"exit code {code} after SIGTERM while starting")


def run(arguments, folder):
    chance = random.Random(arguments.seed)
    server = Server(arguments.program, f"{folder}/data", f"{folder}/server.log")
    writers = Writers(server.port, 4, arguments.seed)
    server.start()
    writers.create_collection()
    slowest = 0.0
    for number in range(arguments.rounds):
        writers.begin()
        time.sleep(chance.uniform(0.02, 0.3))
        if chance.random() < 0.3:
            server.process.send_signal(signal.SIGPIPE)
            time.sleep(0.02)
            if server.process.poll() is not None:
                raise Violation("SIGPIPE ended it")
        begin = time.monotonic()
        which = chance.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
        if number % 4 == 3:
            end_twice(server, which)
        else:
            end_cleanly(server, which)
        slowest = max(slowest, time.monotonic() - begin)
        writers.end()
        if chance.random() < 0.3:
            interrupt_start(server, chance)
        server.start()
        writers.verify()
    server.kill()
    print(f"{writers.acknowledged} writes acknowledged, slowest end {slowest:.2f} s")
    print(f"counted: {arguments.rounds} ends by signals")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--program", required=True)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="aionbd_signals_") as folder:
        try:
            run(arguments, folder)
        except Violation as violation:
            print(f"VIOLATION: {violation}; repeat with --seed {arguments.seed}")
            log = pathlib.Path(folder, "server.log").read_text(encoding="utf-8", errors="replace")
            print("\n".join(log.splitlines()[-20:]))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
