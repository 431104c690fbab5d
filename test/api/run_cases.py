#!/usr/bin/env python3
"""Runs the black-box cases of api/cases against a real `aionbd serve`.

usage: run_cases.py --program PATH [--cases DIR] [--quiet] [FILTER...]

Each case file has its own server on a free port and a temporary data directory; its cases run in
order on that server. api/cases/README.md describes the files. Every answer, whatever the case
asks of it, is also held against the parts of the contract that hold everywhere (`check_always`).
Without a filter, the end of the run checks that every route was answered with success and every
row of the contract's error table was met. Python's standard library only.
"""
import argparse
import http.client
import json
import os
import pathlib
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

START_SECONDS_MAX = 20
STOP_SECONDS_MAX = 15
ANSWER_SECONDS_MAX = 30

# The contract's error table: the codes an error of each status may carry.
CODES = {
    400: {"invalid_argument"}, 401: {"unauthorized"}, 403: {"forbidden"}, 404: {"not_found"},
    405: {"method_not_allowed"}, 408: {"request_timeout"}, 409: {"conflict"},
    413: {"payload_too_large"}, 429: {"resource_exhausted"}, 431: {"headers_too_large"},
    500: {"internal"}, 503: {"not_ready", "overloaded"}, 507: {"storage_full"},
}
# Rows no case can meet yet: credentials come with authentication, 500 is a defect by definition.
ROWS_NOT_MET = {(401, "unauthorized"), (403, "forbidden"), (500, "internal")}


class Failure(Exception):
    """A case did not hold; the text says what was seen and what was wanted."""


# ---- Bodies --------------------------------------------------------------------------------------

def generated_vector(dimension, seed):
    """Floats in [-1, 1) with at most 3 decimals, the same on every machine."""
    rng = random.Random(seed)
    return [rng.randrange(-1000, 1000) / 1000 for _ in range(dimension)]


def generated_payload(i, kind):
    """{"n"} or, of kind "mixed", a field of each type that is indexed."""
    if kind != "mixed":
        return {"n": i}
    return {"n": i, "tag": f"t{i % 100}", "even": i % 2 == 0, "tags": [f"a{i % 7}", f"b{i % 11}"]}


def expand(value, variables):
    """`value` with its generators ({"$range": ...} and so on) and ${variables} filled in."""
    if isinstance(value, str):
        whole = re.fullmatch(r"\$\{(\w+)\}", value)
        if whole:
            return variables[whole.group(1)]
        return re.sub(r"\$\{(\w+)\}", lambda m: str(variables[m.group(1)]), value)
    if isinstance(value, list):
        return [expand(item, variables) for item in value]
    if not isinstance(value, dict):
        return value
    if "$vector" in value:  # [dimension, seed]
        return generated_vector(*expand(value["$vector"], variables))
    if "$range" in value:  # [first, last]
        first, last = expand(value["$range"], variables)
        return list(range(first, last + 1))
    if "$repeat" in value:  # [item, times]
        item, times = value["$repeat"]
        item = expand(item, variables)
        return item * times if isinstance(item, str) else [item] * times
    if "$nest" in value:  # [key, depth, innermost]: {"key": {"key": ... innermost}}
        key, depth, inner = value["$nest"]
        for _ in range(depth):
            inner = [inner] if key == "[]" else {key: [inner] if key[-1:] == "t" else inner}
        return inner
    if "$points" in value:  # {"first", "count", "dimension", "payload"?}
        spec = expand(value["$points"], variables)
        return [{"id": i, "values": generated_vector(spec["dimension"], i),
                 **({"payload": generated_payload(i, spec["payload"])} if spec.get("payload")
                    else {})}
                for i in range(spec["first"], spec["first"] + spec["count"])]
    return {key: expand(item, variables) for key, item in value.items()}


# ---- Answers -------------------------------------------------------------------------------------

class Answer:
    def __init__(self, status, headers, body):
        self.status, self.body = status, body
        self.headers = {}
        for name, value in headers:
            self.headers.setdefault(name.lower(), value)

    def json(self):
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise Failure(f"body is not JSON ({error}): {self.body[:200]!r}") from error

    def __str__(self):
        return f"{self.status} {self.body[:300].decode('utf-8', 'replace')}"


class SharedReader:
    """One buffered reader for several answers on a socket: http.client would open one for each,
    and the first would swallow bytes of the next."""

    def __init__(self, link):
        self.reader = link.makefile("rb")
        self.read, self.readline = self.reader.read, self.reader.readline
        self.readinto, self.flush = self.reader.readinto, lambda: None

    def makefile(self, _mode):
        return self

    def close(self):
        pass


def mismatch(wanted, got, path="body"):
    """None when `got` is what `wanted` describes, else where and how it differs."""
    if isinstance(wanted, str) and wanted.startswith("$"):
        kinds = {"$any": lambda v: True, "$number": lambda v: is_number(v),
                 "$uint": lambda v: isinstance(v, int) and is_number(v) and v >= 0,
                 "$string": lambda v: isinstance(v, str) and v != "",
                 "$bool": lambda v: isinstance(v, bool), "$object": lambda v: isinstance(v, dict)}
        return None if kinds[wanted](got) else f"{path}: {got!r} is no {wanted[1:]}"
    if isinstance(wanted, dict):
        for operator, check in OPERATORS.items():
            if operator in wanted:
                return None if check(wanted, got) else f"{path}: {got!r} is not {wanted}"
        if not isinstance(got, dict):
            return f"{path}: {got!r} is no object"
        subset = wanted.get("$subset", False)
        for key, item in wanted.items():
            if key == "$subset":
                continue
            if item == "$absent":
                if key in got:
                    return f"{path}.{key}: should not be there"
            elif key not in got:
                return f"{path}.{key}: is missing"
            else:
                inner = mismatch(item, got[key], f"{path}.{key}")
                if inner:
                    return inner
        extra = set(got) - set(wanted)
        return f"{path}: unexpected {sorted(extra)}" if extra and not subset else None
    if isinstance(wanted, list):
        if not isinstance(got, list) or len(got) != len(wanted):
            return f"{path}: {got!r} is not {wanted!r}"
        for index, (item, other) in enumerate(zip(wanted, got)):
            inner = mismatch(item, other, f"{path}[{index}]")
            if inner:
                return inner
        return None
    same = wanted == got and isinstance(wanted, bool) == isinstance(got, bool)
    return None if same else f"{path}: {got!r} is not {wanted!r}"


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


OPERATORS = {
    "$approx": lambda w, v: is_number(v) and abs(v - w["$approx"]) <= w.get("tolerance", 1e-5),
    "$contains": lambda w, v: isinstance(v, str) and w["$contains"] in v,
    "$matches": lambda w, v: isinstance(v, str) and re.search(w["$matches"], v) is not None,
    "$length": lambda w, v: hasattr(v, "__len__") and len(v) == w["$length"],
    "$at_least": lambda w, v: is_number(v) and v >= w["$at_least"],
    "$one_of": lambda w, v: any(mismatch(option, v) is None for option in w["$one_of"]),
    "$includes": lambda w, v: isinstance(v, list) and all(
        any(mismatch(item, other) is None for other in v) for item in w["$includes"]),
}


def check_always(answer, method):
    """What the contract says of every answer."""
    request_id = answer.headers.get("x-request-id", "")
    if not re.fullmatch(r"[\x21-\x7e]{1,128}", request_id):
        raise Failure(f"x-request-id is {request_id!r} on {answer}")
    if answer.status < 400:
        return None
    if method == "HEAD":
        return None
    if answer.headers.get("content-type", "").split(";")[0] != "application/json":
        raise Failure(f"an error is application/json, not {answer.headers.get('content-type')!r}")
    error = answer.json()
    if mismatch({"code": "$string", "message": "$string"}, error):
        raise Failure(f"an error is {{code, message}}: {answer}")
    if error["code"] not in CODES.get(answer.status, ()):
        raise Failure(f"the contract has no row {answer.status} {error['code']}: {answer}")
    needed = {401: "www-authenticate", 405: "allow", 503: "retry-after"}.get(answer.status)
    if needed and needed not in answer.headers:
        raise Failure(f"{answer.status} without {needed}")
    return answer.status, error["code"]


def check_expected(expect, answer, saved):
    if isinstance(expect, int):
        expect = {"status": expect}
    wanted = expect.get("status", 200)
    if mismatch(wanted, answer.status):
        raise Failure(f"status {wanted} wanted, got {answer}")
    for name, value in expect.get("headers", {}).items():
        got = answer.headers.get(name.lower())
        wrong = got is not None if value == "$absent" else mismatch(value, got, name)
        if wrong:
            raise Failure(f"header {name}: {got!r} is not {value!r}")
    if "code" in expect and answer.json().get("code") != expect["code"]:
        raise Failure(f"code {expect['code']} wanted, got {answer}")
    if "message" in expect and expect["message"] not in answer.json().get("message", ""):
        raise Failure(f"message with {expect['message']!r} wanted, got {answer}")
    if "json" in expect:
        wrong = mismatch(expect["json"], answer.json())
        if wrong:
            raise Failure(f"{wrong}\n      in {answer}")
    for part in as_list(expect.get("body_contains", [])):
        if part.encode() not in answer.body:
            raise Failure(f"body without {part!r}: {answer}")
    if "hits_of" in expect:
        wrong = hits_differ(expect["hits_of"], answer.json(), json.loads(
            saved[expect["hits_of"]["body"]]))
        if wrong:
            raise Failure(f"{wrong}\n      in {answer}")
    if "body_same_as" in expect and answer.body != saved[expect["body_same_as"]]:
        raise Failure(f"not the bytes of '{expect['body_same_as']}': {answer}")


def hits_differ(wanted, got, saved):
    """None when `got` has as many hits as the saved answer, at least the share `wanted["share"]` of
    them the same (id and value), in the order of the saved answer; else what is wrong."""
    hits, others = got.get("hits"), saved["hits"]
    if not isinstance(hits, list) or len(hits) != len(others):
        return f"{len(others)} hits wanted, got {hits if hits is None else len(hits)}"
    values = {hit["id"]: hit["value"] for hit in others}
    places = {hit["id"]: place for place, hit in enumerate(others)}
    same = [hit for hit in hits if hit["id"] in values]
    if len({hit["id"] for hit in hits}) != len(hits):
        return "an id twice"
    for hit in same:
        if hit["value"] != values[hit["id"]]:
            return f"{hit['id']} has value {hit['value']}, not {values[hit['id']]}"
    if [places[hit["id"]] for hit in same] != sorted(places[hit["id"]] for hit in same):
        return "hits in another order"
    if len(same) < wanted["share"] * len(others):
        return f"{len(same)} of {len(others)} hits are those of '{wanted['body']}'"
    return None


def as_list(value):
    return value if isinstance(value, list) else [value]


# ---- The server ----------------------------------------------------------------------------------

class Server:
    """One `aionbd serve` on a data directory, started and stopped by the cases."""

    def __init__(self, program, settings, folder):
        self.program, self.settings, self.folder = program, settings, folder
        self.data_dir = folder / "data"
        self.process = None
        self.log = open(folder / "server.log", "ab")

    def environment(self, extra):
        env = {key: value for key, value in os.environ.items() if not key.startswith("AIONBD_")}
        env["AIONBD_DATA_DIR"] = str(self.data_dir)
        env["AIONBD_BIND"] = f"127.0.0.1:{self.port}"
        env.update({key: self.with_folder(str(value))
                    for key, value in {**self.settings, **extra}.items()})
        return env

    def with_folder(self, text):
        """Settings and arguments name places as "${dir}/name": the folder beside the data."""
        return text.replace("${dir}", str(self.folder))

    def start(self, extra=None, wait_for="/ready"):
        for _ in range(3):  # somebody else may take the port between choosing and binding it
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
            self.process = subprocess.Popen(
                [self.program, "serve"], env=self.environment(extra or {}),
                stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
            if self.answers(wait_for):
                return
        raise Failure(f"the server did not start:\n{self.last_lines()}")

    def answers(self, path):
        end = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < end and self.process.poll() is None:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", path)
                if connection.getresponse().status == 200:
                    return True
            except OSError:
                pass
            time.sleep(0.02)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        return False

    def end(self, number, wanted):
        self.process.send_signal(number)
        try:
            code = self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired as error:
            self.process.kill()
            self.process.wait()
            raise Failure(f"still running {STOP_SECONDS_MAX} s after {number.name}") from error
        if code != wanted:
            raise Failure(f"exit code {wanted} wanted after {number.name}, got {code}\n"
                          f"{self.last_lines()}")

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def last_lines(self):
        text = (self.folder / "server.log").read_text(encoding="utf-8", errors="replace")
        return "".join(f"      | {line}\n" for line in text.splitlines()[-8:])


# ---- Steps ---------------------------------------------------------------------------------------

class Run:
    """The cases of one file, on one server."""

    def __init__(self, server, met_rows, met_routes):
        self.server, self.met_rows, self.met_routes = server, met_rows, met_routes
        self.variables, self.saved = {}, {}
        self.connection = None

    def step(self, step):
        known = {"request": self.request, "raw": self.raw, "parallel": self.parallel,
                 "server": self.lifecycle, "corrupt": self.corrupt, "append": self.append,
                 "program": self.run_program,
                 "limit_file_bytes": self.limit_file_bytes, "wait_ms": self.wait}
        kinds = known.keys() & step.keys()
        if len(kinds) != 1:
            raise Failure(f"a step is one of {sorted(known)}: {step}")
        known[kinds.pop()](step)

    def request(self, step):
        for index in range(step.get("times", 1)):
            self.variables["i"] = index
            answer = self.exchange(step)
            self.remember(step, answer)
            if "until" in step:  # repeat until this status, or fail after `times`
                if answer.status == step["until"]["status"]:
                    check_expected(step["until"], answer, self.saved)
                    return
                continue
            check_expected(expand(step.get("expect", 200), self.variables), answer, self.saved)
        if "until" in step:
            raise Failure(f"never answered {step['until']['status']} in {step['times']} requests")

    def remember(self, step, answer):
        for name, path in step.get("save", {}).items():
            value = answer.json()
            for key in path.split("."):
                value = value[int(key) if key.isdigit() else key]
            self.variables[name] = value
        if "save_body" in step:
            self.saved[step["save_body"]] = answer.body

    def exchange(self, step, connection=None):
        method, target = expand(step["request"], self.variables).split(" ", 1)
        headers = dict(step.get("headers", {}))
        body = None
        if "body" in step:
            body = json.dumps(expand(step["body"], self.variables)).encode()
            headers.setdefault("content-type", "application/json")
        elif "text" in step:
            body = expand(step["text"], self.variables).encode()
            headers.setdefault("content-type", "application/json")
        alone = connection is not None
        # The case's connection is kept alive, as a client would; the server may have closed it.
        for attempt in (1, 2):
            if not alone and self.connection is None:
                self.connection = http.client.HTTPConnection(
                    "127.0.0.1", self.server.port, timeout=ANSWER_SECONDS_MAX)
            link = connection or self.connection
            try:
                link.putrequest(method, target, skip_accept_encoding=True,
                                skip_host=any(name.lower() == "host" for name in headers))
                for name, value in headers.items():
                    link.putheader(name, expand(value, self.variables))
                if body is not None or method in ("POST", "PUT"):
                    link.putheader("content-length", str(len(body or b"")))
                link.endheaders(body)
                response = link.getresponse()
                answer = Answer(response.status, response.getheaders(), response.read())
                if response.will_close and not alone:
                    self.disconnect()
                break
            except (ConnectionError, http.client.HTTPException, socket.timeout) as error:
                self.disconnect()
                if alone or attempt == 2 or isinstance(error, socket.timeout):
                    raise Failure(f"no answer to {method} {target[:80]}: {error!r}") from error
        self.note(method, target, answer)
        return answer

    def note(self, method, target, answer):
        row = check_always(answer, method)
        if row:
            self.met_rows.add(row)
        elif answer.status < 300:
            self.met_routes.add((method, target.split("?")[0]))

    def disconnect(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def raw(self, step):
        """Bytes as they are: text, {"repeat": [text, times]} or {"wait_ms": n}."""
        expect = as_list(step["expect"])
        with socket.create_connection(("127.0.0.1", self.server.port)) as link:
            link.settimeout(ANSWER_SECONDS_MAX)
            for part in step["raw"]:
                if isinstance(part, dict) and "wait_ms" in part:
                    time.sleep(part["wait_ms"] / 1000)
                    continue
                text = part if isinstance(part, str) else part["repeat"][0] * part["repeat"][1]
                try:
                    link.sendall(text.encode("latin-1"))
                except ConnectionError:
                    break  # the server answered and closed before all was sent
            reader = SharedReader(link)
            for wanted in expect:
                response = http.client.HTTPResponse(reader, method=step.get("method", "GET"))
                try:
                    response.begin()
                    answer = Answer(response.status, response.getheaders(), response.read())
                except (ConnectionError, http.client.HTTPException, socket.timeout) as error:
                    raise Failure(f"no answer to raw bytes: {error!r}") from error
                self.note(step.get("method", "GET"), "raw", answer)
                check_expected(wanted, answer, self.saved)
            if step.get("closes"):
                try:
                    if reader.read(1):
                        raise Failure("more bytes where the connection should be closed")
                except ConnectionError:
                    pass  # closed with bytes of ours unread: a reset is a close too
                except socket.timeout as error:
                    raise Failure("the connection should be closed") from error

    def parallel(self, step):
        """`clients` connections repeat one request at once; each status seen must be allowed."""
        seen, wrong, lock = {}, [], threading.Lock()
        request = step["parallel"]

        def client():
            for _ in range(request.get("times", 1)):
                link = http.client.HTTPConnection("127.0.0.1", self.server.port,
                                                  timeout=ANSWER_SECONDS_MAX)
                try:
                    answer = self.exchange(request, link)
                    with lock:
                        seen.setdefault(str(answer.status), answer)
                except Failure as failure:
                    with lock:
                        wrong.append(failure)
                finally:
                    link.close()

        threads = [threading.Thread(target=client) for _ in range(request["clients"])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if wrong:
            raise wrong[0]
        if set(seen) != set(step["expect"]):
            raise Failure(f"statuses {sorted(step['expect'])} wanted, saw {sorted(seen)}")
        for status, expect in step["expect"].items():
            check_expected({"status": int(status), **expect}, seen[status], self.saved)

    def lifecycle(self, step):
        self.disconnect()
        action = step["server"]
        if action in ("stop", "restart"):
            self.server.end(signal.SIGTERM, 0)
        if action in ("kill", "kill and start"):
            self.server.end(signal.SIGKILL, -signal.SIGKILL)
        if action in ("start", "restart", "kill and start"):
            self.server.start(step.get("settings"), step.get("wait_for", "/ready"))

    def files(self, pattern):
        files = [path for path in self.server.data_dir.rglob(pattern) if path.is_file()]
        if not files:
            names = sorted(str(path.relative_to(self.server.data_dir))
                           for path in self.server.data_dir.rglob("*"))
            raise Failure(f"no file matches {pattern} in {names}")
        return files

    def corrupt(self, step):
        """Flips one bit of every file that matches, at `at` (default: in the middle)."""
        for path in self.files(step["corrupt"]):
            content = bytearray(path.read_bytes())
            content[step.get("at", len(content) // 2)] ^= 1
            path.write_bytes(content)

    def append(self, step):
        """Adds bytes that mean nothing to every file that matches: a torn write."""
        for path in self.files(step["append"]):
            with open(path, "ab") as file:
                file.write(b"\xa5" * step["bytes"])

    def run_program(self, step):
        """Runs the program beside the server (same data directory) and checks how it ends."""
        env = self.server.environment(step.get("settings", {}))
        if step["program"][0] != "serve":  # the client commands; the server knows no such setting
            env["AIONBD_URL"] = f"http://127.0.0.1:{self.server.port}"
        try:
            arguments = [self.server.with_folder(word) for word in step["program"]]
            done = subprocess.run([self.server.program, *arguments], env=env,
                                  stdin=subprocess.DEVNULL, capture_output=True,
                                  timeout=START_SECONDS_MAX, check=False)
        except subprocess.TimeoutExpired as error:
            raise Failure(f"still running after {START_SECONDS_MAX} s") from error
        output = (done.stdout + done.stderr).decode("utf-8", "replace")
        if done.returncode != step["exit"]:
            raise Failure(f"exit code {step['exit']} wanted, got {done.returncode}: {output[:300]}")
        for part in as_list(step.get("says", [])):
            if part not in output:
                raise Failure(f"should say {part!r}: {output[:300]}")

    def limit_file_bytes(self, step):
        """The server's file-size limit from now on; null lifts it."""
        bytes_max = step["limit_file_bytes"]
        soft = resource.RLIM_INFINITY if bytes_max is None else bytes_max
        resource.prlimit(self.server.process.pid, resource.RLIMIT_FSIZE,
                         (soft, resource.RLIM_INFINITY))

    def wait(self, step):
        time.sleep(step["wait_ms"] / 1000)


# ---- Files of cases ------------------------------------------------------------------------------

def run_file(path, program, filters, quiet, met):
    """Returns (passed, failed) of one file."""
    spec = json.loads(path.read_text(encoding="utf-8"))
    cases = [case for case in spec["cases"]
             if not filters or any(word in f"{path.stem}: {case['name']}" for word in filters)]
    if not cases:
        return 0, 0
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="aionbd-api-") as folder:
        server = Server(program, spec.get("settings", {}), pathlib.Path(folder))
        try:
            server.start()
            for case in cases:
                error = run_case(Run(server, *met), case)
                passed, failed = passed + (error is None), failed + (error is not None)
                if error is not None:
                    print(f"FAILED {path.stem}: {case['name']}\n    {error}", flush=True)
                elif not quiet:
                    print(f"ok     {path.stem}: {case['name']}", flush=True)
                if server.process.poll() is not None:
                    if error is None and not case.get("ends_stopped"):
                        print(f"FAILED {path.stem}: {case['name']} left no server\n"
                              f"{server.last_lines()}", flush=True)
                        passed, failed = passed - 1, failed + 1
                    server.start()
        except Failure as failure:  # of a start outside the cases
            print(f"FAILED {path.stem}: {failure}", flush=True)
            failed += len(cases) - passed - failed
        finally:
            server.close()
    return passed, failed


def run_case(run, case):
    for number, step in enumerate(case["steps"], 1):
        try:
            run.step(step)
        except Failure as failure:
            what = step.get("request") or next(iter(step))
            return f"step {number} ({str(what)[:80]}): {failure}"
        except KeyError as error:
            return f"step {number}: the case itself is wrong: {error!r}"
    run.disconnect()
    return None


def check_coverage(program, met_rows, met_routes):
    """Every route was answered with success, every row of the error table was met."""
    wrong = [f"no case meets {status} {code}" for status, codes in CODES.items() for code in codes
             if (status, code) not in met_rows | ROWS_NOT_MET]
    listing = subprocess.run([program, "inspect", "routes", "--markdown"], capture_output=True,
                             text=True, check=False).stdout
    routes = re.findall(r"`?(GET|POST|PUT|DELETE)`?[ |]+`?(/[^\s`|]*)", listing)
    if not routes:
        wrong.append("`aionbd inspect routes` lists no route")
    for method, route in routes:
        pattern = re.compile(re.sub(r":\w+|\{\w+\}", "[^/]+", route))
        if not any(verb == method and pattern.fullmatch(path) for verb, path in met_routes):
            wrong.append(f"no case succeeds at {method} {route}")
    return wrong


def main():
    parser = argparse.ArgumentParser()
    root = pathlib.Path(__file__).resolve().parent.parent.parent
    parser.add_argument("--program", required=True)
    parser.add_argument("--cases", default=root / "api" / "cases", type=pathlib.Path)
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("filters", nargs="*")
    options = parser.parse_args()
    program = os.path.abspath(options.program)
    met_rows, met_routes = set(), set()
    passed = failed = 0
    for path in sorted(options.cases.glob("*.json")):
        more = run_file(path, program, options.filters, options.quiet, (met_rows, met_routes))
        passed, failed = passed + more[0], failed + more[1]
    if not options.filters:
        wrong = check_coverage(program, met_rows, met_routes)
        for line in wrong:
            print(f"FAILED coverage: {line}")
        passed, failed = passed + (not wrong), failed + bool(wrong)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
