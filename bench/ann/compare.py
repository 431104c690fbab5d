#!/usr/bin/env python3
"""Two nearest-neighbour programs side by side: speed at equal recall.

    bench/ann/compare.py --ours COMMAND --peer COMMAND [--at 0.90,0.95] [--rounds 3] [--pin CPU]

Each command searches one data set at several settings and prints JSON lines with at least
{"recall": .., "qps": ..}; other lines are passed over. `aionbd bench ann --json --sweep ..` is one.
The commands run in turns, so that a machine that is shared or changes its clock treats both alike.

At each recall a side's speed is that of the straight line, in log(queries a second) over recall,
between its two neighbouring best settings; no setting that is beaten in both counts. The ratio of
each round is printed, and the median. A recall that a side's settings do not reach is said so.
"""
import argparse
import json
import math
import os
import shlex
import statistics
import subprocess
import sys


def points_of(output):
    """(recall, queries a second) of the lines that have both."""
    points = []
    for line in output.splitlines():
        try:
            row = json.loads(line)
            points.append((float(row["recall"]), float(row["qps"])))
        except (ValueError, KeyError, TypeError):
            continue
    return points


def frontier(points):
    """The points that no other beats in both, by rising recall (and so by falling speed)."""
    best = []
    for recall, qps in sorted(points, reverse=True):
        if not best or qps > best[-1][1]:
            best.append((recall, qps))
    return best[::-1]


def speed_at(points, recall):
    """Queries a second at `recall`, or None where no setting reaches it."""
    best = frontier(points)
    if not best or recall > best[-1][0]:
        return None
    if recall <= best[0][0]:  # even the least precise setting is this good
        return best[0][1]
    for (low, fast), (high, slow) in zip(best, best[1:]):
        if low < recall <= high:
            share = (recall - low) / (high - low)
            return math.exp(math.log(fast) + share * (math.log(slow) - math.log(fast)))
    return None


def run(command, pin):
    words = (["taskset", "-c", pin] if pin else []) + shlex.split(command)
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"exit code {done.returncode}: {command}")
    points = points_of(done.stdout)
    if not points:
        sys.exit(f"no line with recall and qps: {command}")
    return points


def shown(value, form):
    return "not reached" if value is None else format(value, form)


def main():
    parser = argparse.ArgumentParser(description="Speed of two programs at equal recall.")
    parser.add_argument("--ours", required=True, help="command that prints JSON lines")
    parser.add_argument("--peer", required=True, help="the same, of the program beside it")
    parser.add_argument("--at", default="0.90,0.95,0.99", help="recalls to compare at")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pin", default="", help="CPU for both")
    flags = parser.parse_args()
    recalls = [float(text) for text in flags.at.split(",")]
    rounds = []
    for number in range(flags.rounds):
        # Who goes first alternates as well.
        order = ["ours", "peer"] if number % 2 == 0 else ["peer", "ours"]
        rounds.append({side: run(getattr(flags, side), flags.pin) for side in order})
        print(f"round {number + 1} of {flags.rounds} done", file=sys.stderr)
    print(f"{'recall':>8} {'ours':>12} {'peer':>12} {'ratio':>12}  rounds")
    for recall in recalls:
        speeds = {side: [speed_at(one[side], recall) for one in rounds]
                  for side in ("ours", "peer")}
        median = {side: statistics.median(found) if None not in found else None
                  for side, found in speeds.items()}
        ratios = [ours / peer for ours, peer in zip(speeds["ours"], speeds["peer"])
                  if ours is not None and peer is not None]
        ratio = statistics.median(ratios) if len(ratios) == len(rounds) else None
        print(f"{recall:>8} {shown(median['ours'], '.0f'):>12} {shown(median['peer'], '.0f'):>12} "
              f"{shown(ratio, '.2f'):>12}  {' '.join(format(value, '.2f') for value in ratios)}")
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
