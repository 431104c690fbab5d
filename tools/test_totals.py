#!/usr/bin/env python3
"""Adds up what ctest and the GoogleTest programs reported: `N passed, N failed`, the last line.

usage: test_totals.py REPORTS, a folder with ctest.xml (JUnit) and one JSON file per program. A
program that died before writing its file counts as one failure; one that is no GoogleTest program
(a fuzz corpus replay) counts as one test.
"""
import json
import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def read_programs(reports):
    """Program name -> did it succeed, from ctest's own report."""
    tree = ElementTree.parse(reports / "ctest.xml")
    return {case.get("name"): case.get("status") == "run" for case in tree.iter("testcase")}


def failed_names(report):
    return [
        f"{suite['name']}.{case['name']}"
        for suite in report["testsuites"]
        for case in suite["testsuite"]
        if case.get("failures")
    ]


def main():
    reports = pathlib.Path(sys.argv[1])
    passed = failed = 0
    for name, succeeded in sorted(read_programs(reports).items()):
        detail = reports / f"{name}.json"
        try:
            report = json.loads(detail.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            report = None
        if report is None:
            passed, failed = passed + succeeded, failed + (not succeeded)
            if not succeeded:
                print(f"FAILED {name}")
            continue
        names = failed_names(report)
        passed += report["tests"] - report.get("disabled", 0) - len(names)
        failed += max(len(names), 0 if succeeded else 1)
        for case in names or ([] if succeeded else ["died after its tests"]):
            print(f"FAILED {name}: {case}")
    if passed + failed == 0:
        print("FAILED no test ran")
        failed = 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
