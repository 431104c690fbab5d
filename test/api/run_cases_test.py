#!/usr/bin/env python3
"""Shows that the case runner's checks can fail: each wrong answer here must be noticed."""
import sys

import run_cases
from run_cases import Answer, Failure

ERROR = b'{"code":"not_found","message":"no"}'
JSON = ("content-type", "application/json")
ID = ("x-request-id", "a")

# (wanted, got, does it match)
MATCHES = [
    (1, 1, True), (1, 2, False), (1, 1.0, True), (1, True, False), (True, 1, False),
    (0, None, False),
    (9007199254740993, 9007199254740992, False), (0.1, 0.10000000149011612, False),
    ({"a": 1}, {"a": 1}, True), ({"a": 1}, {"a": 1, "b": 2}, False), ({"a": 1}, {}, False),
    ({"$subset": True, "a": 1}, {"a": 1, "b": 2}, True),
    ({"$subset": True, "a": 1}, {"b": 1}, False),
    ({"a": "$absent"}, {}, True), ({"$subset": True, "a": "$absent"}, {"a": None}, False),
    ([1, 2], [1, 2], True), ([1, 2], [2, 1], False), ([1], [1, 2], False), ([], {}, False),
    ("$uint", 3, True), ("$uint", -1, False), ("$uint", 1.5, False), ("$uint", True, False),
    ("$number", "1", False), ("$string", "", False), ("$bool", 0, False), ("$any", None, True),
    ({"$approx": 1, "tolerance": 0.1}, 1.05, True), ({"$approx": 1, "tolerance": 0.1}, 1.2, False),
    ({"$contains": "b"}, "abc", True), ({"$contains": "d"}, "abc", False),
    ({"$matches": "^a$"}, "ab", False), ({"$length": 2}, [1], False), ({"$at_least": 2}, 1, False),
    ({"$one_of": [1, 2]}, 2, True), ({"$one_of": [1, 2]}, 3, False),
    ({"$includes": [{"$subset": True, "a": 1}]}, [{"a": 1, "b": 2}], True),
    ({"$includes": [1, 9]}, [1, 2], False),
]

# (status, header fields, body, method, is it what the contract says of every answer)
ANSWERS = [
    (200, [ID], b"", "GET", True), (200, [], b"", "GET", False),
    (200, [("x-request-id", "two words")], b"", "GET", False),
    (404, [ID, JSON], ERROR, "GET", True), (404, [ID, JSON], b"", "HEAD", True),
    (404, [ID], ERROR, "GET", False), (404, [ID, JSON], b"no", "GET", False),
    (404, [ID, JSON], b'{"code":"not_found"}', "GET", False),
    (404, [ID, JSON], b'{"code":"conflict","message":"no"}', "GET", False),
    (418, [ID, JSON], ERROR, "GET", False),
    (405, [ID, JSON], b'{"code":"method_not_allowed","message":"no"}', "GET", False),
    (503, [ID, JSON], b'{"code":"overloaded","message":"no"}', "GET", False),
    (503, [ID, JSON, ("retry-after", "1")], b'{"code":"overloaded","message":"no"}', "GET", True),
]

# (expectation, answer, does it hold)
OK = Answer(200, [ID, ("allow", "GET")], b'{"a":1}')
EXPECTATIONS = [
    (200, OK, True), (404, OK, False), ({}, OK, True), ({"status": 404}, OK, False),
    ({"json": {"a": 1}}, OK, True), ({"json": {"a": 2}}, OK, False),
    ({"headers": {"allow": "GET"}}, OK, True), ({"headers": {"allow": "PUT"}}, OK, False),
    ({"headers": {"allow": "$absent"}}, OK, False), ({"headers": {"missing": "$absent"}}, OK, True),
    ({"headers": {"missing": {"$contains": "x"}}}, OK, False),
    ({"body_contains": "1"}, OK, True), ({"body_contains": ["1", "2"]}, OK, False),
    ({"body_same_as": "same"}, OK, True), ({"body_same_as": "other"}, OK, False),
    ({"code": "x"}, OK, False),
]

# (share wanted, hits as (id, value), whether they are those of (1, 0.5), (2, 0.6), (3, 0.7))
SAVED_HITS = [(1, 0.5), (2, 0.6), (3, 0.7)]
HITS = [
    (1.0, SAVED_HITS, True), (1.0, [(1, 0.5), (2, 0.6), (4, 0.8)], False),
    (0.6, [(1, 0.5), (2, 0.6), (4, 0.8)], True), (0.6, [(1, 0.5), (2, 0.6)], False),
    (0.6, [(1, 0.5), (2, 0.7), (4, 0.8)], False), (0.6, [(2, 0.6), (1, 0.5), (4, 0.8)], False),
    (0.3, [(1, 0.5), (1, 0.5), (2, 0.6)], False),
]


def holds(check, *arguments):
    try:
        check(*arguments)
        return True
    except Failure:
        return False


def main():
    results = [(f"mismatch{case[:2]}", (run_cases.mismatch(*case[:2]) is None) == case[2])
               for case in MATCHES]
    results += [(f"check_always {case}",
                 holds(run_cases.check_always, Answer(*case[:3]), case[3]) == case[4])
                for case in ANSWERS]
    saved = {"same": b'{"a":1}', "other": b'{"a":1 }'}
    results += [(f"check_expected {case[0]}",
                 holds(run_cases.check_expected, case[0], case[1], saved) == case[2])
                for case in EXPECTATIONS]
    def hits_of(pairs):
        return {"hits": [{"id": point, "value": value} for point, value in pairs]}
    results += [(f"hits_differ {case}",
                 (run_cases.hits_differ({"body": "same", "share": case[0]}, hits_of(case[1]),
                                        hits_of(SAVED_HITS)) is None) == case[2])
                for case in HITS]
    for name, right in results:
        if not right:
            print(f"FAILED {name}")
    failed = sum(not right for _, right in results)
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
