#!/usr/bin/env python3
"""Kills the real program before each system call that changes a file (T7 of the plan).

usage: syscalls.py PROGRAM [--every K] [--protocol serve|restore] [--verbose]

Two protocols: a server through its first start, writes, two checkpoints, a compaction and a backup;
and a restore over a store that is there. Each is run once to count its N state-changing calls (of
all threads together), then once for every K-th of them, with SIGKILL in place of that call.
Whatever follows must find everything that was acknowledged and nothing else, backups that restore,
and a directory that `verify` finds clean.

It traces the program itself (ptrace), because `strace --inject=...:when=i` counts for each thread
and each call on its own, which cannot name "the i-th call of the process". Standard library only.
"""
import argparse
import ctypes
import http.client
import json
import os
import pathlib
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

READY_SECONDS_MAX = 20
ANSWER_SECONDS_MAX = 30
BYTES_PER_POINTER = 8

# ---- Tracing -------------------------------------------------------------------------------------

# Calls by number: those whose first argument is a descriptor, and those that take paths.
ON_DESCRIPTOR = {
    "x86_64": {1: "write", 18: "pwrite64", 20: "writev", 296: "pwritev", 328: "pwritev2",
               74: "fsync", 75: "fdatasync", 77: "ftruncate", 285: "fallocate"},
    "aarch64": {64: "write", 68: "pwrite64", 66: "writev", 70: "pwritev", 287: "pwritev2",
                82: "fsync", 83: "fdatasync", 46: "ftruncate", 47: "fallocate"},
}
ON_PATH = {
    "x86_64": {82: "rename", 264: "renameat", 316: "renameat2", 83: "mkdir", 258: "mkdirat",
               87: "unlink", 263: "unlinkat", 84: "rmdir"},
    "aarch64": {38: "renameat", 276: "renameat2", 34: "mkdirat", 35: "unlinkat"},
}
OPENAT = {"x86_64": 257, "aarch64": 56}

PTRACE_TRACEME, PTRACE_SYSCALL, PTRACE_SETOPTIONS = 0, 24, 0x4200
PTRACE_GET_SYSCALL_INFO = 0x420E
# Stops at calls are marked, new threads and processes are traced, all die with the tracer.
OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x100000
WAIT_ALL = 0x40000000
SYSCALL_STOP = signal.SIGTRAP | 0x80
ENTRY = 1


class SyscallInfo(ctypes.Structure):
    _fields_ = [("op", ctypes.c_uint8), ("pad", ctypes.c_uint8 * 3), ("arch", ctypes.c_uint32),
                ("instruction", ctypes.c_uint64), ("stack", ctypes.c_uint64),
                ("number", ctypes.c_uint64), ("arguments", ctypes.c_uint64 * 6)]


LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
LIBC.ptrace.restype = ctypes.c_long


class Tracee:
    """A program under trace. Made, run and ended by one thread."""

    def __init__(self, command, env, log, folder, kill_at):
        self.folder, self.kill_at = os.fspath(folder) + "/", kill_at
        self.calls, self.killed = [], False
        machine = platform.machine()
        if machine not in ON_PATH:
            raise SystemExit(f"syscalls.py: system calls of {machine} are not in its table")
        self.on_descriptor, self.on_path = ON_DESCRIPTOR[machine], ON_PATH[machine]
        self.openat = OPENAT[machine]
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(log, 1)
            os.dup2(log, 2)
            LIBC.ptrace(PTRACE_TRACEME, 0, None, None)
            os.kill(os.getpid(), signal.SIGSTOP)
            os.execve(command[0], command, env)
        os.waitpid(self.pid, 0)
        LIBC.ptrace(PTRACE_SETOPTIONS, self.pid, None, OPTIONS)
        self.go_on(self.pid, 0)

    @staticmethod
    def go_on(pid, number):
        LIBC.ptrace(PTRACE_SYSCALL, pid, None, number)

    def run(self):
        """Until the program ends; its wait status."""
        while True:
            pid, status = os.waitpid(-1, WAIT_ALL)
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                if pid == self.pid:
                    return status
                continue
            number = os.WSTOPSIG(status)
            if number == SYSCALL_STOP:
                self.look_at_call(pid)
                number = 0
            elif number in (signal.SIGTRAP, signal.SIGSTOP):
                number = 0  # an event of the tracing, or a new thread
            self.go_on(pid, number)

    def look_at_call(self, pid):
        info = SyscallInfo()
        LIBC.ptrace(PTRACE_GET_SYSCALL_INFO, pid, ctypes.sizeof(info), ctypes.byref(info))
        if info.op != ENTRY or self.killed:
            return
        name = self.name_of(pid, info)
        if name is None:
            return
        self.calls.append(name)
        if len(self.calls) == self.kill_at:
            self.killed = True
            os.kill(self.pid, signal.SIGKILL)  # the call does not run any more

    def name_of(self, pid, info):
        """What a call does to a file below the folder; None for all others."""
        number = info.number
        if number in self.on_descriptor:
            try:
                path = os.readlink(f"/proc/{pid}/fd/{info.arguments[0]}")
            except OSError:
                return None
            return f"{self.on_descriptor[number]} {path}" if path.startswith(self.folder) else None
        if number in self.on_path:
            return self.on_path[number]
        if number == self.openat and info.arguments[2] & os.O_CREAT:
            return "openat O_CREAT"
        return None


# ---- The program ---------------------------------------------------------------------------------

class Violation(Exception):
    """Something that must not be after a kill."""


class Gone(Exception):
    """The server did not answer."""


class Client:
    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS_MAX)

    def ask(self, method, path, body=None):
        """(status, body); raises Gone without an answer."""
        try:
            self.connection.request(method, path, None if body is None else json.dumps(body),
                                    {"content-type": "application/json"})
            answer = self.connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            raise Gone from error

    def wait_until_ready(self, is_running):
        end = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < end and is_running():
            try:
                if self.ask("GET", "/ready")[0] == 200:
                    return True
            except Gone:
                pass
            time.sleep(0.005)
        return False


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(folder, port):
    env = {key: value for key, value in os.environ.items() if not key.startswith("AIONBD_")}
    env.update(AIONBD_BIND=f"127.0.0.1:{port}", AIONBD_DATA_DIR=f"{folder}/data",
               AIONBD_BACKUP_DIR=f"{folder}/backups", AIONBD_CHECKPOINT_INTERVAL="1000000",
               AIONBD_RECALL_AUDIT="false")
    return env


class Served:
    """`aionbd serve` without a trace, on a directory of ours."""

    def __init__(self, program, folder, data_dir, log):
        self.port = free_port()
        env = environment(folder, self.port)
        env["AIONBD_DATA_DIR"] = os.fspath(data_dir)
        self.process = subprocess.Popen([program, "serve"], env=env, stdout=log, stderr=log)
        self.client = Client(self.port)

    def __enter__(self):
        if not self.client.wait_until_ready(lambda: self.process.poll() is None):
            self.process.kill()
            self.process.wait()
            raise Violation("the server does not start again")
        return self.client

    def __exit__(self, *_):
        self.process.terminate()
        code = self.process.wait(READY_SECONDS_MAX)
        if code != 0 and sys.exc_info()[0] is None:
            raise Violation(f"SIGTERM ended the server with {code}")


def content_of(program, folder, data_dir, log):
    """Every point of the collection; None without the collection."""
    with Served(program, folder, data_dir, log) as client:
        status, answer = client.ask("POST", "/collections/c/points/scroll",
                                    {"limit": 1000, "include_values": True})
        if status == 404:
            return None
        if status != 200:
            raise Violation(f"cannot read back: {status} {answer}")
        return {point["id"]: point["values"][0] for point in answer["points"]}


def run_program(program, arguments, log, wanted=(0,)):
    done = subprocess.run([program, *arguments], stdout=subprocess.PIPE, stderr=log, check=False,
                          timeout=ANSWER_SECONDS_MAX)
    if done.returncode not in wanted:
        raise Violation(f"{' '.join(map(str, arguments))} ended with {done.returncode}: "
                        f"{done.stdout.decode()[:300]}")
    return done.stdout


# ---- The protocol of a server --------------------------------------------------------------------

class Workload:
    """Requests one after the other, and what is known of them. Runs on a thread of its own."""

    def __init__(self, port):
        self.client = Client(port)
        self.state, self.next_state = None, None  # acknowledged; with the request under way
        self.backups = []                         # what each acknowledged backup must hold
        self.problem = None
        self.running = True

    def run(self):
        try:
            if self.client.wait_until_ready(lambda: self.running):
                self.script()
        except Gone:
            pass
        except Exception as error:  # whatever it is, it belongs into the report
            self.problem = repr(error)

    def script(self):
        self.write({}, "POST", "/collections", {"name": "c", "dimension": 2})
        self.put(range(8), 1)
        self.maintain("/collections/c/optimize")  # a checkpoint
        self.put(range(4, 10), 2)
        self.delete([0, 5])
        self.maintain("/collections/c/optimize")  # a checkpoint, and a merge of both segments
        self.put([20], 3)
        self.maintain("/backup")
        self.backups.append(dict(self.state))
        self.put([2, 21], 4)
        self.maintain("/backup")
        self.backups.append(dict(self.state))

    def write(self, after, method, path, body):
        self.next_state = after
        status, answer = self.client.ask(method, path, body)
        if status != 200:
            raise Violation(f"{path}: {status} {answer}")
        self.state = after

    def put(self, ids, value):
        points = [{"id": i, "values": [value, i]} for i in ids]
        self.write({**self.state, **{i: value for i in ids}}, "POST", "/collections/c/points",
                   {"points": points})

    def delete(self, ids):
        self.write({i: v for i, v in self.state.items() if i not in ids}, "POST",
                   "/collections/c/points/delete", {"ids": ids})

    def maintain(self, path):
        status, answer = self.client.ask("POST", path)
        if status != 200:
            raise Violation(f"{path}: {status} {answer}")


def serve_once(program, folder, log, kill_at):
    """The calls made until the end, or until the kill; raises Violation."""
    port = free_port()
    workload = Workload(port)
    tracee = Tracee([program, "serve"], environment(folder, port), log.fileno(), folder, kill_at)
    thread = threading.Thread(target=workload.run)
    ender = threading.Thread(target=lambda: (thread.join(), stop(tracee.pid)))
    thread.start()
    ender.start()
    status = tracee.run()
    workload.running = False
    ender.join()
    if workload.problem is not None:
        raise Violation(workload.problem)
    if not tracee.killed and (not os.WIFEXITED(status) or os.WEXITSTATUS(status) != 0):
        raise Violation(f"the server ended by itself: wait status {status}")
    check_served(program, folder, log, workload, tracee.killed)
    return tracee.calls


def stop(pid):
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass


def check_served(program, folder, log, workload, killed):
    data = folder / "data"
    found = content_of(program, folder, data, log)
    allowed = [workload.state, workload.next_state] if killed else [workload.state]
    if found not in allowed:
        raise Violation(f"found {found}, acknowledged {workload.state}, "
                        f"under way {workload.next_state}")
    run_program(program, ["verify", data], log)
    # Where no backup was begun there is no directory of them.
    if not (folder / "backups").is_dir():
        if workload.backups:
            raise Violation("an acknowledged backup is gone")
        return
    listed = run_program(program, ["restore", folder / "backups", "--list", "--json"], log)
    numbers = [backup["number"] for backup in json.loads(listed)]
    if len(numbers) < len(workload.backups):
        raise Violation(f"backups {numbers}, acknowledged {len(workload.backups)}")
    for number in numbers:
        restored = folder / f"restored-{number}"
        run_program(program, ["restore", folder / "backups", "--number", str(number), "--data-dir",
                              restored], log)
        content = content_of(program, folder, restored, log)
        # The workload writes nothing while a backup is made.
        wanted = (workload.backups + [workload.state])[number - 1]
        if content != wanted:
            raise Violation(f"backup {number} holds {content}, not {wanted}")


# ---- The protocol of a restore -------------------------------------------------------------------

def prepare_restore(program, folder, log):
    """Makes a store and two backups of it in `folder`; its states."""
    states = []
    for value in (1, 2):
        with Served(program, folder, folder / "data", log) as client:
            if value == 1:
                client.ask("POST", "/collections", {"name": "c", "dimension": 2})
            points = [{"id": i, "values": [value, i]} for i in range(8)]
            client.ask("POST", "/collections/c/points", {"points": points})
            client.ask("POST", "/collections/c/optimize")
            if value == 1:
                client.ask("POST", "/backup")
        states.append({i: value for i in range(8)})
    return states


def restore_once(program, template, states, folder, log, kill_at):
    shutil.copytree(template, folder, dirs_exist_ok=True)
    command = [program, "restore", f"{folder}/backups", "--data-dir", f"{folder}/data", "--replace",
               "--quiet"]
    tracee = Tracee(command, environment(folder, 0), log.fileno(), folder, kill_at)
    status = tracee.run()
    if not tracee.killed and (not os.WIFEXITED(status) or os.WEXITSTATUS(status) != 0):
        raise Violation(f"restore ended by itself: wait status {status}")
    run_program(program, ["verify", folder / "data"], log)
    found = content_of(program, folder, folder / "data", log)
    allowed = states if tracee.killed else states[:1]
    if found not in allowed:
        raise Violation(f"found {found}, which is neither the old store nor the restored one")
    # Once more, over whatever the kill left.
    run_program(program, command[1:], log)
    found = content_of(program, folder, folder / "data", log)
    if found != states[0]:
        raise Violation(f"restored again, it holds {found}")
    return tracee.calls


# ---- Runs ----------------------------------------------------------------------------------------

def run_protocol(name, once, every, verbose, log):
    """Returns the number of violations."""
    calls = in_folder(once, 0)
    points = list(range(1, len(calls) + 1, every))
    print(f"{name}: {len(calls)} state-changing calls, {len(points)} kills", flush=True)
    violations = 0
    start = time.monotonic()
    for at in points:
        log.write(f"---- {name}, kill at call {at}\n".encode())
        log.flush()
        what = "-"
        try:
            made = in_folder(once, at)
            what = made[-1] if len(made) == at else "ended before"
        except Violation as violation:
            violations += 1
            print(f"VIOLATION {name}, killed at call {at} of {len(calls)} "
                  f"({calls[at - 1]}): {violation}", flush=True)
        if verbose:
            print(f"  {at}: {what}", flush=True)
    print(f"{name}: {len(points)} kills in {time.monotonic() - start:.0f} s, "
          f"{violations} violations", flush=True)
    return violations


def in_folder(once, kill_at):
    with tempfile.TemporaryDirectory(prefix="aionbd-syscalls-") as name:
        return once(pathlib.Path(name), kill_at)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("program")
    parser.add_argument("--every", type=int, default=1, help="only each K-th call")
    parser.add_argument("--protocol", choices=["serve", "restore"])
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    program = os.path.abspath(options.program)
    violations = 0
    with tempfile.TemporaryDirectory(prefix="aionbd-syscalls-") as scratch, \
            open(pathlib.Path(scratch) / "log", "ab") as log:
        if options.protocol in (None, "serve"):
            violations += run_protocol(
                "serve", lambda folder, at: serve_once(program, folder, log, at),
                options.every, options.verbose, log)
        if options.protocol in (None, "restore"):
            template = pathlib.Path(scratch) / "template"
            template.mkdir()
            states = prepare_restore(program, template, log)
            violations += run_protocol(
                "restore",
                lambda folder, at: restore_once(program, template, states, folder, log, at),
                options.every, options.verbose, log)
        if violations:
            kept = pathlib.Path(tempfile.gettempdir()) / "aionbd-syscalls.log"
            shutil.copy(pathlib.Path(scratch) / "log", kept)
            print(f"what the programs said: {kept}")
    sys.exit(1 if violations else 0)


if __name__ == "__main__":
    main()
