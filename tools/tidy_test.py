#!/usr/bin/env python3
"""Shows for every rule of tidy.py that it can fail, and that what is right passes.

Each sample is a small tree; a line that must be reported carries `<-- part of the message`, and
nothing else may be reported by that rule.
"""
import re
import sys

import tidy

MARKER = "TO" + "DO"
OPENING = "// A file.\n"
HEADER = "// A header.\n#pragma once\n"
CMAKE = {"CMakeLists.txt": "aionbd_folder(base)\naionbd_folder(engine)\n"}

# (rule, path -> text). Several samples of one rule are fine.
SAMPLES = [
    ("include_table", {
        "src/index/graph.cc": '#include "payload/filter.h"  <-- index/ may not include payload/\n'
                              '#include "index/visited.h"\n#include "aionbd/types.h"\n'
                              '#include "aionbd/database.h"  <-- may not include aionbd/\n',
        "src/engine/search.cc": '#include "storage/wal.h"  <-- private to storage/\n'
                                '#include "storage/storage.h"\n'
                                '#include "search.h"  <-- spell project headers\n'
                                '#include "server/server.h"  <-- may not include server/\n'
                                '#include "io/sim_file_system.h"  <-- private to io/\n',
        "src/engine/search_test.cc": '#include "io/sim_file_system.h"\n',
        "src/server/routes.cc": '#include "engine/engine.h"  <-- may not include engine/\n',
    }),
    ("third_party", {
        "src/engine/a.cc": "#include <fmt/format.h>  <-- belongs in\n#include <vector>\n",
        "src/server/http.cc": "#include <boost/asio.hpp>\n#include <errno.h>\n",
        "src/server/json.cc": "#include <nlohmann/json.hpp>  <-- in no row\n"
                              '#include "server/fake.h"\n',
        "src/server/json_test.cc": "#include <gtest/gtest.h>\n#include <fcntl.h>\n"
                                   '#include "server/oracle.h"\n#include "server/fake.h"\n',
        "src/server/oracle.h": "#include <boost/beast.hpp>\n",
        "src/server/fake.h": "#include <boost/beast.hpp>  <-- belongs in\n",
        "src/storage/wal.cc": "#include <fcntl.h>  <-- belongs in src/io/*\n",
    }),
    ("banned_names", {
        "src/storage/wal.cc": 'fsync(fd);  <-- WritableFile::sync\n'
                              'printf("x");  <-- Logger\nauto s = "throw new std::mutex";\n'
                              'std::ifstream in;  <-- FileSystem\n'
                              'throw 1;  <-- Status\nauto* p = new int;  <-- make_unique\n'
                              'return std::unique_ptr<T>(new T(1));\n'
                              'new (p) int;\ndelete p;  <-- unique_ptr\nT(const T&) = delete;\n'
                              'std::mutex m;  <-- base/mutex.h\n// std::mutex in a comment\n'
                              'std::lock_guard l(m);  <-- MutexLock\n'
                              'int r = rand();  <-- base/rng.h\nint b = operand(1);\n'
                              'std::chrono::system_clock::now();  <-- base/clock.h\n'
                              'std::cout << 1;  <-- Logger\nassert(x);  <-- CHECK\n'
                              'static_assert(true);\nstd::stoi(s);  <-- from_chars\n'
                              'std::atomic<std::shared_ptr<int>> a;  <-- Published\n'
                              'strcpy(a, b);  <-- spans\na << std::endl;  <-- \'\\n\'\n'
                              'fopen(a, b);  <-- FileSystem\n'
                              'std::condition_variable c;  <-- CondVar\n',
        "src/cli/main.cc": "std::cout << 1;\n",
        "src/storage/wal_test.cc": "std::ifstream in;\n",
        "src/base/mutex.h": "std::mutex mutex_;\n",
        "src/io/posix.cc": "fsync(fd);\n",
    }),
    ("line_width", {"src/a/b.cc": "x" * 100 + "\n" + "x" * 101 + "  <-- columns\n",
                    "src/a/b_test.cc": 'f("' + "x" * 100 + '");\n'
                                       + "x" * 101 + "  <-- columns\n",
                    "docs/a.md": "x" * 300 + "\n"}),
    ("whitespace", {"a.md": "fine\nnot fine \n <-- "}),
    ("dead_files", {**CMAKE,
                    "src/base/used.h": HEADER,
                    "src/base/a.cc": '#include "base/used.h"\n',
                    "src/base/unused.h": "<-- no file includes\n",
                    "src/base/deep/b.cc": "<-- in no target\n",
                    "src/attic/c.cc": "<-- in no target\n",
                    "test/attic/d.cc": "<-- in no target\n",
                    "test/CMakeLists.txt": "foreach(suite model crash)\n",
                    "test/model/e.cc": "\n"}),
    ("fuzz_corpora", {"src/base/a_fuzz.cc": "<-- has no seed\n",
                      "src/base/b_fuzz.cc": "\n", "test/fuzz_corpus/b_fuzz/1": "seed\n",
                      "test/fuzz_corpus/c_fuzz/1": "<-- no fuzzer is called\n"}),
    ("leftover_markers", {"src/base/a.cc": f"// {MARKER}: later  <-- do it\n// {MARKER}S\n"}),
    ("machine_paths", {"docs/a.md": "see /" + "tmp/x  <-- one machine\nand docs/" + "tmp/x\n"}),
    ("one_title", {"a.md": "# One\n```\n# not a title\n```\n# Two  <-- second\n",
                   "b.md": "Text  <-- begins with\n"}),
    ("dead_links", {"docs/a.md": "[a](b.md) [x](https://a.b/c) [s](#s) [up](../README.md)\n"
                                 "[a](c.md)  <-- c.md\n",
                    "docs/b.md": "# B\n", "README.md": "# R\n[docs](docs)\n"}),
    ("dead_mentions", {"docs/a.md": "see gone.md  <-- gone.md\nsee docs/a.md, ../docs/a.md, a.md\n",
                       "src/base/a.cc": "// See plan.md, 5.2.  <-- plan.md\n// docs/<name>.md\n"}),
    ("case_index", {"api/cases/README.md": "# Cases\n`a.json`\n`gone.json`  <-- not there\n",
                    "api/cases/a.json": "{}\n", "api/cases/b.json": "<-- not listed\n"}),
    ("unused_constants", {
        "src/base/a.cc": "constexpr int kA = 3;\nconst char* const kB[] = {  <-- uses kB\n"
                         "static constexpr double kC{1};  <-- uses kC\n// kC, kD\n"
                         "constexpr size_t kD = kA;  <-- uses kD\nconst int f(int x) {}\n"
                         "  const int local = 3;\nconst T& g() { return 1; }\n",
        "src/base/b.cc": "const T kE = {};\n",
        "src/base/b.h": "extern const T kE;\n"}),
    ("vague_names", {"src/base/string_utils.cc": "<-- share\n", "src/base/bytes.cc": "\n"}),
    ("guarded_headers", {"src/base/a.h": OPENING + "#pragma once\n",
                         "src/base/b.h": "// No guard  <-- pragma\n",
                         "src/base/c.cc": "int a;  <-- opens with\n",
                         "src/base/a.cc": "int a;\n", "src/base/a_test.cc": "int a;\n",
                         "src/base/d_test.cc": "int a;  <-- opens with\n"}),
]


def long_function(name, lines):
    return [f"void {name}() {{"] + ["  f({1, 2});"] * (lines - 2) + ["}"]


FUNCTION_LINES = tidy.FUNCTION_LINES_MAX
SAMPLES.append(("function_length", {"src/base/a.cc": "\n".join(
    ["namespace aionbd {", "const int kTable[] = {", "    f(1),"] + ["    1,"] * 90 + ["};"] +
    long_function("fits", FUNCTION_LINES) + ["C::C(int a) : a_{a}, b_(a) {}"] +
    [line + "  <-- split it" if number == 0 else line
     for number, line in enumerate(long_function("C::crosses", FUNCTION_LINES + 1))] +
    ["class D {", "  int a() const { return 1; }", "  int b_ = 0;"] + ["  int c_{0};"] * 90 +
    ["};", "}  // namespace aionbd", ""])}))


def run_sample(rule_name, sample):
    """Differences between what the rule reports and what the marks say."""
    rule = getattr(tidy, rule_name)
    expected, tree = {}, {}
    for path, text in sample.items():
        lines = text.split("\n")
        for number, line in enumerate(lines, 1):
            mark = re.search(r"\s*<-- (.*)$", line)
            if mark:
                expected[path, number] = mark.group(1)
                if rule_name not in ("whitespace",):
                    lines[number - 1] = line[:mark.start()]
        tree[path] = "\n".join(lines)
    if rule_name == "whitespace":  # the mark would itself end the line
        tree, expected = {"a.md": "fine\nnot fine \nend"}, {("a.md", 2): "blank",
                                                           ("a.md", 3): "no newline"}
    found = {}
    for path, line, message in rule(tree):
        found.setdefault((path, line), []).append(message)
    wrong = []
    for place, part in expected.items():
        if not any(part in message for message in found.get(place, [])):
            wrong.append(f"{place} should say '{part}', says {found.get(place)}")
    wrong += [f"{place} should be fine, says {found[place]}" for place in found.keys() - expected]
    return wrong


def main():
    passed = failed = 0
    for rule_name, sample in SAMPLES:
        wrong = run_sample(rule_name, sample)
        for line in wrong:
            print(f"FAILED {rule_name}: {line}")
        passed, failed = passed + (not wrong), failed + bool(wrong)
    for rule in tidy.RULES:
        if rule.__name__ not in {name for name, _ in SAMPLES}:
            print(f"FAILED {rule.__name__} has no sample")
            failed += 1
    # The ratchet's own table may not keep names that became short.
    tidy.LONG_FUNCTIONS = {("src/base/a.cc", "gone"): "a reason"}
    stale = list(tidy.function_length({"src/base/a.cc": ""}))
    passed, failed = passed + (len(stale) == 1), failed + (len(stale) != 1)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
