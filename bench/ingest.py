#!/usr/bin/env python3
"""Durable ingest over HTTP against its floor, alternating in one run.

    bench/ingest.py AIONBD INGEST_FLOOR DIRECTORY [rounds = 3]

Each round runs the floor (parse the same bodies with simdjson, write, fdatasync) and then a fresh
server with default settings that takes the 60,000 Fashion-MNIST images in batches of 256 over 4
connections. Prints medians: server CPU per batch over the floor's, and the server's commit stage
(write + sync of a group, from its own histograms) over the floor's, per byte written.
"""
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request

DATA = "/usr/share/datasets/fashion-mnist/"
BATCHES = 60000 / 256


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def histogram_sum(text, name):
    return float(re.search(rf"^{name}_sum (\S+)$", text, re.M).group(1))


def run_server(program, directory):
    data = os.path.join(directory, "ingest-bench")
    shutil.rmtree(data, ignore_errors=True)
    server = subprocess.Popen([program, "serve", "--data-dir", data, "--bind", "127.0.0.1:18431"],
                              stderr=subprocess.DEVNULL)
    try:
        url = "http://127.0.0.1:18431"
        while subprocess.run([program, "healthcheck", "--url", url], stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL).returncode:
            time.sleep(0.02)
        before = cpu_seconds(server.pid)
        started = time.monotonic()
        subprocess.run([program, "import", "--url", url, "--collection", "fashion", "--labels",
                        DATA + "train-labels-idx1-ubyte.gz", DATA + "train-images-idx3-ubyte.gz"],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.monotonic() - started
        cpu = cpu_seconds(server.pid) - before
        text = urllib.request.urlopen(url + "/metrics/prometheus").read().decode()
        commit = (histogram_sum(text, "aionbd_wal_append_duration_seconds")
                  + histogram_sum(text, "aionbd_wal_fsync_duration_seconds"))
        return {"cpu_ms": cpu * 1e3 / BATCHES, "commit_ms": commit * 1e3 / BATCHES,
                "rows_per_second": 60000 / seconds}
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(data, ignore_errors=True)


def main():
    program, floor_program, directory = sys.argv[1:4]
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 3
    cpu_ratios, commit_ratios = [], []
    for number in range(rounds):
        floor = json.loads(subprocess.check_output([floor_program, directory]))
        server = run_server(program, directory)
        floor_cpu = floor["parse_cpu_ms"] + floor["write_cpu_ms"]
        cpu_ratios.append(server["cpu_ms"] / floor_cpu)
        commit_ratios.append(server["commit_ms"] / floor["commit_wall_ms_mean"])
        print(f"round {number + 1}: floor CPU {floor_cpu:.2f} ms/batch (parse "
              f"{floor['parse_cpu_ms']:.2f}, write {floor['write_cpu_ms']:.2f}), server CPU "
              f"{server['cpu_ms']:.2f} ms/batch, ratio {cpu_ratios[-1]:.2f}; commit floor "
              f"{floor['commit_wall_ms_mean']:.2f} ms/batch, server {server['commit_ms']:.2f}, "
              f"ratio {commit_ratios[-1]:.2f}; {server['rows_per_second']:.0f} rows/s")
    print(f"median: CPU {statistics.median(cpu_ratios):.2f} x floor (target <= 1.5), commit stage "
          f"{statistics.median(commit_ratios):.2f} x floor (target <= 1.3)")


if __name__ == "__main__":
    main()
