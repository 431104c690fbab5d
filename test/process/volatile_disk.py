"""An nbdkit plugin: a disk that forgets what was not flushed when its power is cut.

Parameters: image=FILE (what is durable), control=DIR, seed=N. Writes stay in memory until a flush.
When DIR/cut appears, the power is gone: of each 512-byte sector written since the last flush one
of its versions survives, drawn from the seed, the durable one included; that goes to the image,
DIR/done is made, and every request fails from then on.
"""
import errno
import os
import random

import nbdkit

API_VERSION = 2
SECTOR = 512

parameters = {}
durable = None
pending = {}  # sector number -> versions, oldest first
is_cut = False


def config(key, value):
    parameters[key] = value


def config_complete():
    for key in ("image", "control", "seed"):
        if key not in parameters:
            raise RuntimeError(f"{key}= is missing")


def thread_model():
    return nbdkit.THREAD_MODEL_SERIALIZE_ALL_REQUESTS


def open(readonly):  # pylint: disable=redefined-builtin
    global durable
    if durable is None:
        durable = os.open(parameters["image"], os.O_RDWR)
    return 1


def get_size(_handle):
    return os.fstat(durable).st_size


def can_multi_conn(_handle):
    return False


def cut_if_told():
    global is_cut
    if not is_cut and os.path.exists(parameters["control"] + "/cut"):
        is_cut = True
        chance = random.Random(int(parameters["seed"]))
        style = chance.choice(["none", "all", "each"])
        for sector, versions in sorted(pending.items()):
            if style == "all":
                survivor = len(versions)
            else:
                survivor = 0 if style == "none" else chance.randint(0, len(versions))
            if survivor > 0:
                os.pwrite(durable, versions[survivor - 1], sector * SECTOR)
        done = os.open(parameters["control"] + "/done.tmp", os.O_CREAT | os.O_WRONLY)
        os.write(done, str(len(pending)).encode())
        os.close(done)
        os.rename(parameters["control"] + "/done.tmp", parameters["control"] + "/done")
    if is_cut:
        nbdkit.set_error(errno.EIO)
        raise RuntimeError("the power is cut")


def pread(_handle, buffer, offset, _flags):
    cut_if_told()
    data = bytearray(os.pread(durable, len(buffer), offset))
    first = offset // SECTOR
    for sector in range(first, (offset + len(buffer) + SECTOR - 1) // SECTOR):
        versions = pending.get(sector)
        if versions:
            at = (sector - first) * SECTOR
            data[at:at + SECTOR] = versions[-1]
    buffer[:] = data


def pwrite(_handle, buffer, offset, _flags):
    cut_if_told()
    data = bytes(buffer)
    for at in range(0, len(data), SECTOR):
        pending.setdefault((offset + at) // SECTOR, []).append(data[at:at + SECTOR])


def block_size(_handle):
    return (SECTOR, 4096, 0xFFFFFFFF)


def flush(_handle, _flags):
    cut_if_told()
    for sector, versions in pending.items():
        os.pwrite(durable, versions[-1], sector * SECTOR)
    pending.clear()
