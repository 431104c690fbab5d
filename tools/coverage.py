#!/usr/bin/env python3
"""How much of the files that durability rests on the tests execute, by clang's counts.

usage: coverage.py BUILD [--gaps PAGE] [--lines PERCENT] [--branches PERCENT]

BUILD is a build with AIONBD_COVERAGE whose tests have run; their counts are in BUILD/counts. Prints
a table and each branch that was never taken, and fails below the percentages. A branch here is a
condition of the source taken one way: `a && b` has four. With --gaps, each that is missing must be
a row of that page, | file | line of source | why |.
"""
import argparse
import collections
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Log, manifest, recovery and checkpoint.
FILES = [
    "src/storage/log_reader.cc", "src/storage/wal.cc", "src/storage/manifest.cc",
    "src/storage/segment_file.cc", "src/storage/storage.cc", "src/storage/store_files.cc",
    "src/engine/catalog.cc", "src/engine/engine.cc", "src/engine/maintenance.cc",
]
Gap = collections.namedtuple("Gap", "file line text never")


def exported(build):
    """What llvm-cov says of FILES, as a list of its file objects."""
    counts = build / "counts"
    profiles = sorted(counts.glob("*.profraw"))
    if not profiles:
        sys.exit(f"coverage: no counts in {counts}: no test has run")
    merged = str(counts / "all.profdata")
    subprocess.run(["llvm-profdata-14", "merge", "-o", merged, *map(str, profiles)], check=True)
    # PROGRAM.profraw, or PROGRAM.SHARD.profraw.
    names = sorted({path.name.split(".")[0] for path in profiles})
    programs = [str(path) for name in names for path in build.rglob(name) if path.is_file()]
    objects = [argument for path in programs[1:] for argument in ("-object", path)]
    text = subprocess.run(
        ["llvm-cov-14", "export", "-format=text", "-instr-profile", merged, programs[0], *objects,
         *(str(ROOT / name) for name in FILES)],
        check=True, stdout=subprocess.PIPE).stdout
    return json.loads(text)["data"][0]["files"]


def branches_of(file):
    """Line -> the branches there, those inside macros at the line that names the outermost one."""
    for branch in file["branches"]:
        yield branch[0], branch
    for expansion in file["expansions"]:
        for branch in expansion["branches"]:
            yield expansion["source_region"][0], branch


def gaps_of(file):
    name = str(pathlib.Path(file["filename"]).relative_to(ROOT))
    source = (ROOT / name).read_text(encoding="utf-8").split("\n")
    for line, branch in sorted(branches_of(file), key=lambda pair: pair[0]):
        taken, not_taken = branch[4], branch[5]
        text = source[line - 1].strip()
        if re.match(r"(while|for) \((true|;;)\)", text):
            continue  # not a branch, though clang lists it
        if not taken and not not_taken:
            yield Gap(name, line, text, "reached")
        elif not taken:
            yield Gap(name, line, text, "true")
        elif not not_taken:
            yield Gap(name, line, text, "false")


def rows_of(page):
    """(File name, line of source) of each row of the page's tables."""
    rows = set()
    for line in page.read_text(encoding="utf-8").split("\n"):
        match = re.match(r"\| `([a-z_]+\.cc)` \| `(.+?)` \|", line)
        if match:
            rows.add((match[1], match[2].replace("\\|", "|")))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--gaps", type=pathlib.Path)
    parser.add_argument("--lines", type=float, default=90)
    parser.add_argument("--branches", type=float, default=80)
    arguments = parser.parse_args()

    files = exported(arguments.build)
    if len(files) != len(FILES):
        sys.exit("coverage: some of the files are in none of the programs")
    totals = {"lines": [0, 0], "branches": [0, 0]}
    gaps = []
    print(f"{'file':32}{'lines':>16}{'branches':>18}")
    for file in files:
        cells = []
        for kind, total in totals.items():
            summary = file["summary"][kind]
            total[0] += summary["covered"]
            total[1] += summary["count"]
            cells.append(f"{summary['covered']} of {summary['count']} {summary['percent']:5.1f} %")
        name = pathlib.Path(file["filename"]).relative_to(ROOT)
        print(f"{str(name):32}{cells[0]:>16}  {cells[1]:>18}")
        gaps += gaps_of(file)
    known = rows_of(arguments.gaps) if arguments.gaps else set()
    unexplained = [gap for gap in gaps if (pathlib.Path(gap.file).name, gap.text) not in known]
    for gap in unexplained if arguments.gaps else gaps:
        print(f"{gap.file}:{gap.line}: never {gap.never}: {gap.text}")
    failed = bool(arguments.gaps and unexplained)
    if failed:
        print(f"FAILED {len(unexplained)} gaps are not explained in {arguments.gaps}")
    for kind, bound in (("lines", arguments.lines), ("branches", arguments.branches)):
        percent = 100 * totals[kind][0] / totals[kind][1]
        failed |= percent < bound
        print(f"{kind}: {totals[kind][0]} of {totals[kind][1]}, {percent:.1f} %"
              f"{'' if percent >= bound else f', FAILED: the bound is {bound:g} %'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
