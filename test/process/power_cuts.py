#!/usr/bin/env python3
"""Power cuts under a real kernel (T8 of the plan): the server on a real file system, on a disk that
forgets what was not flushed.

usage: power_cuts.py --program PATH [--cuts N] [--seed S] [--file-systems NAME...]

  aionbd serve -> ext4 or XFS -> loop device -> nbdfuse -> nbdkit with volatile_disk.py

While writers write, the disk's power is cut: what the kernel had not flushed is lost, in 512-byte
sectors of which any version may survive. The server is killed, the file system mounted again from
what is left, the server started, and everything it had acknowledged must be there, whole batches
only. So the simulated disk of the other tests is held against what a kernel does with our calls.

Needs root, /dev/fuse and loop devices, and the packages of `./dev power`.
"""
import argparse
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
from oracle import Server, Violation, Writers

# Name: bytes of the disk, how it is made, how it is mounted.
FILE_SYSTEMS = {
    "ext4": (64 << 20, ["mkfs.ext4", "-q", "-F"], "loop"),
    "ext4-commit1": (64 << 20, ["mkfs.ext4", "-q", "-F"], "loop,commit=1"),
    "ext4-writeback": (64 << 20, ["mkfs.ext4", "-q", "-F"], "loop,data=writeback"),
    "xfs": (320 << 20, ["mkfs.xfs", "-q", "-f"], "loop"),
}
COMMAND_SECONDS_MAX = 30


def command(*words, check=True):
    done = subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX,
                          check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.returncode == 0


class Disk:
    """The chain from image file to mounted file system, and its power."""

    def __init__(self, folder, kind):
        self.folder, self.kind = folder, kind
        self.image, self.export = f"{folder}/image", f"{folder}/export"
        self.mounted = f"{folder}/mounted"
        self.chain = None
        for name in (self.export, self.mounted):
            os.mkdir(name)
        with open(self.image, "wb") as image:
            image.truncate(FILE_SYSTEMS[kind][0])
        self.is_made = False

    def plug_in(self, seed):
        for name in ("cut", "done"):
            pathlib.Path(self.folder, name).unlink(missing_ok=True)
        with open(f"{self.folder}/disk.log", "ab") as log:
            self.chain = subprocess.Popen(
                ["nbdfuse", f"{self.export}/disk", "--command", "nbdkit", "-s",
                 "--exit-with-parent", "python", f"{HERE}/volatile_disk.py",
                 f"image={self.image}", f"control={self.folder}", f"seed={seed}"],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        begin = time.monotonic()
        while not os.path.exists(f"{self.export}/disk"):
            if self.chain.poll() is not None or time.monotonic() - begin > COMMAND_SECONDS_MAX:
                raise RuntimeError("nbdfuse does not start; see disk.log")
            time.sleep(0.01)
        if not self.is_made:
            command(*FILE_SYSTEMS[self.kind][1], f"{self.export}/disk")
            self.is_made = True
        command("mount", "-o", FILE_SYSTEMS[self.kind][2], f"{self.export}/disk", self.mounted)

    def cut(self):
        """From here on nothing reaches the image. Returns how many sectors were in doubt."""
        pathlib.Path(self.folder, "cut").touch()
        begin = time.monotonic()
        # The next request notices; a sync makes one.
        while not os.path.exists(f"{self.folder}/done"):
            command("sync", "-f", self.mounted, check=False)
            if time.monotonic() - begin > COMMAND_SECONDS_MAX:
                raise RuntimeError("the disk does not notice its power cut")
        return int(pathlib.Path(self.folder, "done").read_text(encoding="ascii") or 0)

    def unplug(self):
        command("umount", self.mounted, check=False) or command("umount", "-l", self.mounted,
                                                               check=False)
        if self.chain is not None:
            begin = time.monotonic()
            while not command("fusermount3", "-u", self.export, check=False):
                if time.monotonic() - begin > COMMAND_SECONDS_MAX:
                    command("fusermount3", "-uz", self.export, check=False)
                    break
                time.sleep(0.05)
            self.chain.wait(COMMAND_SECONDS_MAX)
            self.chain = None


def run(program, kind, cuts, seed, folder):
    """`cuts` power cuts on one file system; returns (writes acknowledged, sectors in doubt)."""
    chance = random.Random(seed)
    disk = Disk(folder, kind)
    server = Server(program, f"{disk.mounted}/data", f"{folder}/server.log")
    writers = Writers(server.port, 4, seed)
    doubt = 0
    try:
        disk.plug_in(chance.randrange(1 << 30))
        for number in range(cuts):
            server.start()
            if number == 0:
                writers.create_collection()
            else:
                writers.verify()
            writers.begin()
            time.sleep(chance.uniform(0.05, 0.8))
            doubt += disk.cut()
            server.kill()
            writers.end()
            disk.unplug()
            disk.plug_in(chance.randrange(1 << 30))
        server.start()
        writers.verify()
    finally:
        server.kill()
        writers.end()
        disk.unplug()
    return writers.acknowledged, doubt


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--program", required=True)
    parser.add_argument("--cuts", type=int, default=20, help="in all")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--file-systems", nargs="*", default=list(FILE_SYSTEMS),
                        choices=list(FILE_SYSTEMS))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    each = -(-arguments.cuts // len(arguments.file_systems))
    for number, kind in enumerate(arguments.file_systems):
        folder = tempfile.mkdtemp(prefix="aionbd_power_")
        try:
            acknowledged, doubt = run(os.path.abspath(arguments.program), kind, each,
                                      arguments.seed + number, folder)
        except Violation as violation:
            print(f"VIOLATION on {kind}: {violation}; seed {arguments.seed}, kept: {folder}")
            return 1
        subprocess.run(["rm", "-rf", "--one-file-system", folder], check=False)
        print(f"  {kind}: {each} cuts, {acknowledged} writes acknowledged, {doubt} sectors not "
              "flushed", flush=True)
        print(f"counted: {each} power cuts of a real kernel")
    return 0


if __name__ == "__main__":
    sys.exit(main())
