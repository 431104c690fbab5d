#!/usr/bin/env python3
"""The long versions of all tests, one after the other, for as long as asked.

usage: campaign.py --hours N [--seed S] [--only NAME...] [--dry-run]
       campaign.py --table REPORT.json

Each row of STAGES gets its share of the time. It is run again and again, with a new seed each time
(printed; a run is repeated by setting the same variables), `jobs` runs beside each other, until its
share is used up; every row runs at least once. What runs print as "counted: N what" is added up.
A run that fails is kept with its output, and its row goes on: one failure must not hide another.

The report goes to build/campaign/<time>/: report.md (a table for docs/durability.md), report.json,
and the output of each run that failed. The exit code is 1 if one did. Standard library only.
"""
import argparse
import collections
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import platform
import re
import shlex
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
RELEASE = "build/release"
# No run takes longer than this, whatever its share: a hang is a failure, too.
RUN_SECONDS_MAX = 4 * 3600


@dataclasses.dataclass
class Stage:
    """One row: what is run, with {seed} and {seconds} filled in."""
    name: str
    share: float  # of the time
    command: str
    variables: dict = dataclasses.field(default_factory=dict)
    serial: bool = False  # one run at a time: it measures time, or takes all cores itself
    once: bool = False  # a fixed amount of work: repeating it shows nothing new
    sharded: bool = False  # with once: googletest spreads its tests over the runs
    needs: str = ""  # a file, or a command of ./dev ("dev soak"), without which the row is left out


STAGES = [
    Stage("model", 0.15, f"{RELEASE}/test/model_test",
          {"AIONBD_MODEL_SEED": "{seed}", "AIONBD_MODEL_OPS": "400000"}),
    Stage("power cuts", 0.20, f"{RELEASE}/test/crash_test --gtest_filter=CrashTest.*",
          {"AIONBD_CRASH_SEED": "{seed}", "AIONBD_CRASH_IMAGES": "200000"}),
    Stage("power cuts of storage", 0.02,
          f"{RELEASE}/storage_test --gtest_filter=StorageCrashTest.*", once=True, sharded=True),
    Stage("every operation, depth 1", 0.05,
          f"{RELEASE}/test/crash_test --gtest_filter=*ExhaustiveCrashTest*",
          {"AIONBD_CRASH_SEED": "{seed}", "AIONBD_CRASH_IMAGE_SEEDS": "8"}),
    Stage("every operation, depth 2", 0.10,
          f"{RELEASE}/test/crash_test --gtest_filter=*ExhaustiveCrashTest*",
          {"AIONBD_CRASH_SEED": "{seed}", "AIONBD_CRASH_DEPTH": "2"}, once=True,
          sharded=True),
    Stage("backup and restore, every operation", 0.03,
          f"{RELEASE}/test/crash_test --gtest_filter=BackupCrashTest.*",
          {"AIONBD_BACKUP_CUTS": "all"}, once=True, sharded=True,
          needs="test/crash/backup_crash_test.cc"),
    Stage("faults", 0.05, f"{RELEASE}/test/crash_test --gtest_filter=*Fault*",
          {"AIONBD_FAULT_SEEDS": "2000", "AIONBD_CONCURRENT_SEEDS": "300"}),
    Stage("damage, all bits", 0.08,
          f"{RELEASE}/test/crash_test --gtest_filter=DamageTest.*",
          {"AIONBD_DAMAGE_SEED": "{seed}", "AIONBD_DAMAGE_ALL_BITS": "1",
           "AIONBD_DAMAGE_STORES": "1", "AIONBD_DAMAGE_INDEX_FLIPS": "5000",
           "AIONBD_DAMAGE_INDEX_REBUILDS": "20"}),
    Stage("histories", 0.08, f"{RELEASE}/test/history_test",
          {"AIONBD_HISTORY_SEED": "{seed}", "AIONBD_HISTORY_OPS": "500000"}),
    Stage("kill -9", 0.10, f"{RELEASE}/test/kill_loop {RELEASE}/aionbd --kills 250 "
          "--points 100000 --seed {seed}", serial=True),
    Stage("kill at system calls", 0.02, "./dev syscalls", serial=True, once=True,
          needs="dev syscalls"),
    Stage("signals", 0.02, "./dev signals --rounds 100 --seed {seed}", serial=True),
    Stage("disconnects", 0.02, "./dev disconnects --rounds 2000 --seed {seed}", serial=True),
    Stage("soak", 0.05, "./dev soak --duration {seconds}s --kill-every 300s --quiet", serial=True,
          needs="dev soak"),
    Stage("coverage", 0.02, "./dev coverage", serial=True, once=True, needs="dev coverage"),
    Stage("power cuts of a real kernel", 0.03, "./dev power --cuts 25 --seed {seed}", serial=True,
          needs="dev power"),
]
# All fuzzers together; each gets the same part of it.
FUZZ_SHARE = 0.07

COUNTED = re.compile(r"^counted: (\d+) (.+)$", re.M)
FUZZ_DONE = re.compile(r"^Done (\d+) runs in ", re.M)
# Told now and then, the sums so far: the last line counts. Only the kill loop knows where it hit.
KILLED = re.compile(
    r"^(\d+) kills\b(?: \((\d+) in recovery, (\d+) in a checkpoint or merge\))?", re.M)


def fuzz_stages():
    names = sorted(path.stem for path in (ROOT / "src").glob("*/*_fuzz.cc"))
    return [Stage(f"fuzz {name}", FUZZ_SHARE / len(names), f"./dev fuzz {name} {{seconds}}",
                  once=True) for name in names]


def there(needs):
    if not needs:
        return True
    if needs.startswith("dev "):
        return f"cmd_{needs[4:]}()" in (ROOT / "dev").read_text(encoding="utf-8")
    return (ROOT / needs).exists()


@dataclasses.dataclass
class Row:
    """What became of a stage."""
    name: str
    runs: int = 0
    failures: int = 0
    seconds: float = 0
    first_seed: int = 0
    counts: dict = dataclasses.field(default_factory=collections.Counter)
    failed: list = dataclasses.field(default_factory=list)  # how to repeat each

    def counts_text(self):
        return ", ".join(f"{count:,} {what}" for what, count in self.counts.items()) or "-"


def counts_of(output):
    """What a run says that it has done."""
    found = collections.Counter()
    for count, what in COUNTED.findall(output):
        found[what] += int(count)
    for count in FUZZ_DONE.findall(output):
        found["inputs"] += int(count)
    for kills in KILLED.findall(output)[-1:]:
        for count, what in zip(kills, ("kills", "kills in recovery",
                                       "kills in a checkpoint or merge")):
            if count:
                found[what] += int(count)
    return found


def run_once(stage, seed, seconds, number, jobs, folder):
    """One run: its counts, and how to repeat it if it failed, else None."""
    fill = {"seed": seed, "seconds": max(int(seconds), 10)}
    command = stage.command.format(**fill)
    variables = {name: value.format(**fill) for name, value in stage.variables.items()}
    if stage.sharded:
        variables |= {"GTEST_TOTAL_SHARDS": str(jobs), "GTEST_SHARD_INDEX": str(number)}
    try:
        done = subprocess.run(shlex.split(command), cwd=ROOT, env={**os.environ, **variables},
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              stdin=subprocess.DEVNULL, timeout=RUN_SECONDS_MAX, check=False)
        output, code = done.stdout.decode(errors="replace"), done.returncode
    except subprocess.TimeoutExpired as late:
        output, code = (late.stdout or b"").decode(errors="replace"), "no end"
    if code == 0:
        return counts_of(output), None
    log = folder / f"{stage.name.replace(' ', '_').replace(',', '')}_{number}.log"
    log.write_text(output, encoding="utf-8")
    words = [f"{name}={value}" for name, value in variables.items()] + [command]
    return counts_of(output), f"{' '.join(words)}  # exit {code}, output in {log.name}"


def run_stage(stage, seconds, first_seed, jobs, folder):
    row = Row(stage.name, first_seed=first_seed)
    begin = time.monotonic()
    at_once = 1 if stage.serial or (stage.once and not stage.sharded) else jobs
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        pending = set()
        while True:
            late = stage.once or time.monotonic() - begin >= seconds
            while row.runs < at_once or (not late and len(pending) < at_once):
                # Seeds that two runs of one stage draw from never meet. Shards share theirs.
                seed = first_seed + (0 if stage.once else 1_000_000 * row.runs)
                pending.add(pool.submit(run_once, stage, seed, seconds, row.runs, jobs, folder))
                row.runs += 1
            if not pending:
                break
            done, pending = concurrent.futures.wait(
                pending, return_when=concurrent.futures.FIRST_COMPLETED)
            for run in done:
                counts, failure = run.result()
                row.counts += counts
                if failure is not None:
                    row.failures += 1
                    row.failed.append(failure)
                    print(f"\nFAILED: {failure}", flush=True)
    row.seconds = time.monotonic() - begin
    return row


def table(rows):
    lines = ["| Test | Runs | Counts | Failures | Time | First seed |", "|---|---|---|---|---|---|"]
    for row in rows:
        lines.append(f"| {row.name} | {row.runs} | {row.counts_text()} | {row.failures} | "
                     f"{row.seconds:.0f} s | {row.first_seed} |")
    return "\n".join(lines)


def commit():
    done = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
                          capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def write_report(folder, rows, arguments, seconds):
    failures = sum(row.failures for row in rows)
    text = [f"Commit {commit()}, {time.strftime('%Y-%m-%d', time.gmtime())}, {arguments.jobs} "
            f"cores ({platform.machine()}), {seconds / 3600:.1f} h, {failures} failures.", "",
            table(rows), ""]
    for row in rows:
        text += [f"- {failure}" for failure in row.failed]
    (folder / "report.md").write_text("\n".join(text).rstrip() + "\n", encoding="utf-8")
    (folder / "report.json").write_text(
        json.dumps({"commit": commit(), "seconds": seconds,
                    "rows": [vars(row) for row in rows]}, indent=1), encoding="utf-8")
    return failures


def print_table(path):
    report = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    print(table([Row(**row) for row in report["rows"]]))
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--hours", type=float, default=3)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1_000_000 * 1000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="*", default=[], help="stages whose name contains one")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, run nothing")
    parser.add_argument("--table", metavar="REPORT.json", help="print the table of a report")
    arguments = parser.parse_args()
    if arguments.table:
        return print_table(arguments.table)
    stages = [stage for stage in STAGES + fuzz_stages() if there(stage.needs) and
              (not arguments.only or any(word in stage.name for word in arguments.only))]
    whole = sum(stage.share for stage in stages)
    folder = ROOT / "build/campaign" / time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    if not arguments.dry_run:
        folder.mkdir(parents=True)
        print(f"seed {arguments.seed}, {arguments.jobs} runs at once, report in "
              f"{folder.relative_to(ROOT)}", flush=True)
    rows, begin = [], time.monotonic()
    for stage in stages:
        seconds = arguments.hours * 3600 * stage.share / whole
        if arguments.dry_run:
            print(f"{stage.name:28} {seconds:6.0f} s  {stage.command}")
            continue
        print(f"{stage.name:28}", end="", flush=True)
        row = run_stage(stage, seconds, arguments.seed, arguments.jobs, folder)
        rows.append(row)
        print(f"{row.seconds:6.0f} s  {row.runs} runs, {row.failures} failures: "
              f"{row.counts_text()}", flush=True)
        failures = write_report(folder, rows, arguments, time.monotonic() - begin)
    if arguments.dry_run:
        return 0
    print(f"\n{(folder / 'report.md').read_text(encoding='utf-8')}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
